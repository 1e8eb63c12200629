"""What a component tracks: summed over the micro-batches of a step and over ranks, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from trainkit import stepsums
from trainkit.stepsums import StepSums


def pair(total: float, count: float) -> dict[str, tuple[Tensor, float]]:
    return {"main": (torch.tensor(total, requires_grad=True), count)}


def taken(sums: StepSums) -> dict[str, tuple[float, float]]:
    return {name: (float(total), float(count)) for name, (total, count) in sums.take().items()}


def test_micro_batches_of_a_step_add_up_without_a_graph() -> None:
    sums = StepSums()
    for values in (pair(2.0, 4), pair(3.0, 6)):
        sums.put(values)
        sums.keep(window=0)
    total, count = sums.take()["main"]
    assert (float(total), float(count)) == (5.0, 10.0)
    assert not total.requires_grad
    assert sums.take() == {}


def test_a_forward_pass_that_is_no_micro_batch_does_not_count() -> None:
    sums = StepSums()
    sums.put(pair(2.0, 4))
    sums.keep(window=0)
    sums.put(pair(100.0, 4))
    assert taken(sums) == {"main": (2.0, 4.0)}


def test_a_window_whose_update_was_skipped_is_forgotten() -> None:
    sums = StepSums()
    sums.put(pair(float("nan"), 4))
    sums.keep(window=0)
    sums.put(pair(1.0, 2))
    sums.keep(window=1)
    assert taken(sums) == {"main": (1.0, 2.0)}


def test_ranks_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(stepsums, "on_all_ranks", lambda sums: sums)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.add_(10))
    sums, total = StepSums(), torch.tensor(2.0)
    sums.put({"main": (total, 4)})
    sums.keep()
    assert taken(sums) == {"main": (12.0, 14.0)}
    assert float(total) == 2.0, "the loss's own value is left whole"

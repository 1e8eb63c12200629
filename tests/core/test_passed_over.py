"""Micro-batches of which nothing is to be learned: a component answers `on_loss` with the count 0."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from trainkit import hookimpl
from trainkit.api import start
from trainkit.contracts import LossOutput
from trainkit.plan import Stage
from trainkit.testing.tiny import TinyTask, tiny_request, tiny_run


class PassOver:
    """Says of every micro-batch with one of these samples that nothing of it is to be learned."""

    def __init__(self, *samples: int) -> None:
        self.samples = set(samples)

    @hookimpl
    def on_loss(self, batch: Any, loss: LossOutput) -> LossOutput | None:
        return LossOutput(loss.sum.detach(), 0) if self.samples & set(batch["sample_id"].tolist()) else None


class Drawn:
    """Notes the samples of each micro-batch, and the gradients of each step."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.norms: list[float] = []

    @hookimpl
    def on_loss(self, run: Any, batch: Any, outputs: Any) -> None:
        assert outputs["logits"].shape[0] == len(batch["sample_id"])
        self.batches.append(batch["sample_id"].tolist())

    @hookimpl
    def on_gradients(self, norm: Any) -> None:
        self.norms.append(float(norm))


def test_a_window_of_nothing_is_no_step_and_changes_nothing(tmp_path: Any) -> None:
    drawn = Drawn()
    everything = PassOver(*range(24))
    callbacks = [everything, drawn]
    result = start(tiny_request({"out": str(tmp_path / "run")}, stages=[Stage(epochs=2)], callbacks=callbacks))
    assert (result.summary["steps"], result.summary["epochs"], result.summary["samples"]) == (0, 2, 48)
    assert drawn.norms == []
    fresh = tiny_run().model.state_dict()
    assert all(torch.equal(fresh[name], tensor) for name, tensor in result.model.state_dict().items())


def test_a_micro_batch_of_nothing_counts_nothing_in_its_window(tmp_path: Any) -> None:
    settings = {"loop.accumulate": 2, "loop.max_steps": 1, "loop.clip": None}
    whole, half = Drawn(), Drawn()
    start(tiny_request({"out": str(tmp_path / "whole"), **settings}, callbacks=[whole], task=TinyTask(dropout=0.0)))
    first, second = whole.batches[:2]
    callbacks = [PassOver(first[0]), half]
    start(tiny_request({"out": str(tmp_path / "half"), **settings}, callbacks=callbacks, task=TinyTask(dropout=0.0)))
    run = tiny_run(task=TinyTask(dropout=0.0))
    loss = run.forward(run.batch_maker()(0, torch.tensor(second), torch.zeros(len(second), dtype=torch.long)))[1]
    (loss.sum / loss.count).backward()
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in run.learnable.values() if p.grad is not None]))
    assert half.norms[0] == pytest.approx(float(norm), rel=1e-5)
    assert half.norms[0] != pytest.approx(whole.norms[0], rel=1e-2)

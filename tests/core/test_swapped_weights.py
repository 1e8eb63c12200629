"""Components that swap weights for evaluations and checkpoints: what is in place when, and what a run leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trainkit import hookimpl
from trainkit.api import Request, evaluate, resume, start
from trainkit.errors import ExitCode
from trainkit.live import Run
from trainkit.rundir import rows
from trainkit.testing.component import same
from trainkit.testing.tiny import tiny_request

BIAS = "head.bias"


class Swap:
    """Put a constant in place of the head's bias."""

    def __init__(self, value: float = 7.0) -> None:
        self.value = value
        self.trained: torch.Tensor | None = None
        self.seen: list[str] = []

    @hookimpl
    def swap_weights_in(self, run: Run) -> None:
        if self.trained is None:
            self.trained = run.learnable[BIAS].detach().clone()
            run.learnable[BIAS].detach().fill_(self.value)

    @hookimpl
    def swap_weights_out(self, run: Run) -> None:
        if self.trained is not None:
            run.learnable[BIAS].detach().copy_(self.trained)
            self.trained = None

    def note(self, run: Run, event: str) -> None:
        self.seen.append(f"{event} {'swapped' if bool((run.learnable[BIAS] == self.value).all()) else 'trained'}")

    @hookimpl
    def before_evaluation(self, run: Run, split: str) -> None:
        self.note(run, f"before {split}")

    @hookimpl
    def after_evaluation(self, run: Run, split: str) -> None:
        self.note(run, f"after {split}")

    @hookimpl
    def on_step(self, run: Run) -> None:
        self.note(run, "step")

    def state_dict(self) -> dict[str, Any]:
        return {"trained": self.trained}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.trained = state["trained"]


class StopAt:
    """Ask for a stop, as a signal does, after a step."""

    @hookimpl
    def on_step(self, run: Run) -> None:
        if run.moment.step == 5:
            run.signal = 10


def asked(out: Path, *callbacks: object, **settings: Any) -> Request:
    return tiny_request({"out": str(out), "loop.max_steps": 9, **settings}, callbacks=callbacks)


def saved(out: Path, step: int, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoints" / f"checkpoint-{step}" / name)


def validated(out: Path) -> list[float]:
    return [row["val/loss"] for row in rows(out / "metrics.jsonl") if "val/loss" in row]


def test_swapped_weights_are_evaluated_saved_and_returned_and_training_never_notices(tmp_path: Path) -> None:
    start(asked(tmp_path / "plain"))
    swap = Swap()
    result = start(asked(tmp_path / "swapped", swap))
    assert swap.seen[:8] == [*["step trained"] * 6, "before val trained", "after val trained"]
    assert {event.split()[-1] for event in swap.seen[: swap.seen.index("before train swapped")]} == {"trained"}
    one, other = saved(tmp_path / "plain", 9), saved(tmp_path / "swapped", 9)
    assert bool((other.pop(BIAS) == 7).all())
    trained = one.pop(BIAS)
    assert same(one, other)
    kept = saved(tmp_path / "swapped", 9, "state.safetensors").values()
    assert any(torch.equal(tensor, trained) for tensor in kept)
    assert bool((result.model.state_dict()[BIAS] == 7).all())
    losses = [validated(tmp_path / run) for run in ("plain", "swapped")]
    assert len(losses[0]) == len(losses[1]) > 0
    assert set(losses[0]).isdisjoint(losses[1])


def test_a_resumed_run_trains_on_with_the_trained_weights(tmp_path: Path) -> None:
    start(asked(tmp_path / "straight", Swap()))
    cut = asked(tmp_path / "cut", Swap(), StopAt())
    assert start(cut).exit_code is ExitCode.STOPPED
    assert bool((saved(tmp_path / "cut", 5)[BIAS] == 7).all())
    live = {**cut.live, "live:callback0": Swap()}
    assert resume(tmp_path / "cut", Request((), live, cut.registry, report=cut.report)).exit_code is ExitCode.DONE
    for name in ("model.safetensors", "state.safetensors", "optimizer.safetensors"):
        assert same(saved(tmp_path / "straight", 9, name), saved(tmp_path / "cut", 9, name))
    assert validated(tmp_path / "straight") == validated(tmp_path / "cut")


def test_an_evaluation_of_the_run_measures_the_swapped_weights(tmp_path: Path) -> None:
    done = asked(tmp_path / "run", Swap())
    start(done)
    live = {**done.live, "live:callback0": Swap()}
    found = evaluate(tmp_path / "run", "val", Request((), live, done.registry, report=done.report))
    assert found["val/loss"] == pytest.approx(min(validated(tmp_path / "run")), rel=1e-6)


def test_of_two_that_swap_the_last_one_in_is_the_first_one_out(tmp_path: Path) -> None:
    start(asked(tmp_path / "one", Swap(7.0)))
    start(asked(tmp_path / "two", Swap(3.0), Swap(7.0)))
    assert same(saved(tmp_path / "one", 9), saved(tmp_path / "two", 9))
    assert same(
        saved(tmp_path / "one", 9, "optimizer.safetensors"), saved(tmp_path / "two", 9, "optimizer.safetensors")
    )

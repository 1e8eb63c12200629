"""A run of several ranks that was stopped goes on: to the bit on as many ranks, to rounding on another number."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from trainkit import hookimpl
from trainkit.api import resume
from trainkit.config import layer_of
from trainkit.contracts import LossOutput
from trainkit.ranks.states import own_states
from trainkit.rundir import rows
from trainkit.storage.tensorfile import read
from trainkit.testing.resuming import StopAt
from trainkit.testing.tiny import TinyTask

from .tworanks import furthest, on_ranks, request, speaking_ranks, trained

pytestmark = [
    pytest.mark.xdist_group("ranks"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo"),
]
SETTINGS = {"loop.log_every_steps": 4, "optimizer.use": "adamw", "optimizer.lr": 1e-3, "loop.epochs": 3}


class Remembers:
    """Change the loss by what was seen on this rank alone: state that differs by rank."""

    def __init__(self) -> None:
        self.seen = 0.0

    @hookimpl
    def on_loss(self, run: Any, batch: Any, loss: LossOutput) -> LossOutput:
        self.seen += float(batch["tokens"].sum())
        return LossOutput(loss.sum * (1 + self.seen % 7), loss.count)

    def state_dict(self) -> dict[str, float]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.seen = state["seen"]


def asked(out: Path, dropout: float = 0.0, *callbacks: object, **settings: Any) -> Any:
    """Return the request of a run that keeps what differs by rank, with dropout if wanted."""
    task = TinyTask(samples=21, dropout=dropout)
    return request({"out": str(out), **SETTINGS, **settings}, task=task, callbacks=callbacks)


def went_on(out: Path, wanted: Any, **settings: Any) -> dict[str, Any]:
    """Go on with a run; return the weights that it came to."""
    changed = [layer_of(settings, "test")] if settings else []
    result = resume(out, dataclasses.replace(wanted, layers=changed))
    return {"weights": {name: value.flatten().tolist() for name, value in result.model.state_dict().items()}}


def files(out: Path, step: int) -> dict[str, torch.Tensor]:
    """Return the weights and the optimizer's state of a checkpoint."""
    folder = out / "checkpoints" / f"checkpoint-{step}"
    return {**read(folder / "model.safetensors"), **read(folder / "optimizer.safetensors")}


def logged(out: Path) -> list[dict[str, Any]]:
    """Return the rows of a log without what a clock says."""
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows(out / "metrics.jsonl")]


@pytest.mark.parametrize("stop", [3, 5, 6])
def test_two_ranks_go_on_to_the_bit(tmp_path, stop):
    """Stopped inside an epoch, at its end, and in the next; with dropout and with state that differs by rank."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    on_ranks(lambda: trained(asked(straight, 0.3, Remembers())))
    stopped = on_ranks(lambda: trained(asked(broken, 0.3, Remembers(), StopAt(stop, signal.SIGUSR1))))
    assert [(rank["code"], rank["steps"]) for rank in stopped] == [(75, stop)] * 2
    found = on_ranks(lambda: went_on(broken, asked(broken, 0.3, Remembers(), StopAt(-1))))
    assert [rank.get("text") for rank in found] == [None, None]
    whole, again = files(straight, 15), files(broken, 15)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert logged(straight) == logged(broken)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_ranks_goes_on_and_says_what_is_not_the_same(tmp_path, before, after):
    straight, broken, said = tmp_path / "straight", tmp_path / "broken", tmp_path / "said"

    def first() -> Any:
        return trained(asked(broken, 0.0, StopAt(7)))

    def then() -> Any:
        wanted = dataclasses.replace(asked(broken, 0.0, StopAt(-1)), report=lambda line: said.write_text(line))
        return went_on(broken, wanted, devices=after)

    alone = trained(asked(straight, 0.0, StopAt(-1)))
    stopped = on_ranks(first) if before == 2 else [first()]
    assert {rank["code"] for rank in stopped} == {75}
    found = on_ranks(then) if after == 2 else [then()]
    assert [rank.get("text") for rank in found] == [None] * after
    assert furthest(alone["weights"], found[0]["weights"]) < 1e-6
    assert f"ranks now: {after}, before: {before}" in said.read_text()
    steps = [row["step"] for row in logged(broken)]
    assert steps == [row["step"] for row in logged(straight)]
    for one, other in zip(logged(straight), logged(broken), strict=True):
        assert one.keys() == other.keys()
        assert all(other[tag] == pytest.approx(one[tag], rel=1e-4) for tag in one)


def test_a_run_that_is_done_is_done_for_all_ranks(tmp_path):
    out = tmp_path / "run"
    first = on_ranks(lambda: trained(asked(out)))
    again = on_ranks(lambda: went_on(out, asked(out)))
    assert [rank["weights"] for rank in again] == [rank["weights"] for rank in first]


def test_states_are_kept_for_each_rank_only_where_they_differ():
    def kept(world: Any) -> Any:
        states = {"same": {"a": torch.ones(3)}, "own": {"b": torch.full((2,), float(world.rank)), "c": (1, world.rank)}}
        found = own_states(world, states)
        alike = own_states(world, {"same": states["same"]})
        return [[sorted(state) for state in found], found[1]["own"]["b"].tolist(), list(found[1]["own"]["c"]), alike]

    assert speaking_ranks(kept) == [[[[], ["own"]], [1.0, 1.0], [1, 1], []]] * 2

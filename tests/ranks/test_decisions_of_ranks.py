"""What one rank hears, asks for or meets is a matter of all: they stop, skip and end a stage at one step."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch
from trainkit import hookimpl
from trainkit.contracts import LossOutput
from trainkit.errors import RanksError, UsageError
from trainkit.plan import Stage
from trainkit.ranks.asked import SeveralRanks
from trainkit.ranks.world import World, world_of
from trainkit.rundir import rows
from trainkit.testing.tiny import TinyTask

from .tworanks import on_ranks, request, speaking_ranks, trained

pytestmark = [
    pytest.mark.xdist_group("ranks"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo"),
]


class At:
    """Do something once, after a step, on one rank."""

    def __init__(self, step: int, do: Any, rank: int = 1) -> None:
        self.step, self.do, self.rank = step, do, rank

    @hookimpl
    def on_step(self, run: Any) -> None:
        if run.moment.step == self.step and run.world.rank == self.rank:
            self.do(run)


class NoNumber:
    """Make the loss NaN on one rank, in some windows."""

    def __init__(self, *windows: int) -> None:
        self.windows = windows

    @hookimpl
    def on_loss(self, run: Any, loss: LossOutput) -> LossOutput | None:
        if run.world.rank == 1 and run.moment.window in self.windows:
            return LossOutput(loss.sum * float("nan"), loss.count)
        return None


def test_every_rank_hears_what_each_says():
    def said(world: World) -> Any:
        numbers = world.table([world.rank, 0.5])
        words = world.everyones({"rank": world.rank, "nothing": float("nan") if world.rank else None})
        raw = world.everyones_bytes(b"\0\xff" * world.rank)
        summed = world.sum(torch.tensor([1.0, world.rank]))
        return [numbers, str(words), [len(part) for part in raw], summed.tolist(), world.firsts(f"of {world.rank}")]

    told = "[{'rank': 0, 'nothing': None}, {'rank': 1, 'nothing': nan}, {'rank': 2, 'nothing': nan}]"
    expected = [[[0.0, 0.5], [1.0, 0.5], [2.0, 0.5]], told, [0, 2, 4], [3.0, 3.0], "of 0"]
    assert speaking_ranks(said, 3) == [expected] * 3


def test_a_rank_that_is_gone_is_an_error_with_an_exit_code_of_its_own():
    def asked(world: World) -> Any:
        if world.rank == 1:
            os._exit(0)
        with pytest.raises(RanksError, match="another rank is gone") as lost:
            world.table([1.0])
        return int(lost.value.exit_code)

    assert speaking_ranks(asked) == [8, None]


def test_a_rank_that_stands_still_is_given_up(tmp_path):
    def work() -> Any:
        stand = At(3, lambda run: os.kill(os.getpid(), signal.SIGSTOP))
        return trained(request({"out": str(tmp_path / "run"), "rank_timeout": 1.0}, callbacks=[stand]))

    first, second = on_ranks(work, limit=20)
    assert (first["error"], first["text"].splitlines()[0]) == ("RanksError", "another rank does not answer")
    assert second is None


def test_one_rank_asks_to_stop_and_all_do(tmp_path):
    def work() -> Any:
        return trained(request({"out": str(tmp_path / "run")}, callbacks=[At(3, lambda run: run.stop("had enough"))]))

    found = on_ranks(work)
    assert [(rank["steps"], rank["stop_reason"], rank["code"]) for rank in found] == [(3, "had enough", 0)] * 2


def test_one_rank_ends_the_stage_of_all(tmp_path):
    def work() -> Any:
        stages = (Stage(name="first", epochs=2), Stage(name="second", steps=2))
        callbacks = [At(4, lambda run: run.end_stage("learned"))]
        return trained(request({"out": str(tmp_path / "run")}, stages=stages, callbacks=callbacks))

    found = on_ranks(work)
    assert [rank["steps"] for rank in found] == [6, 6]
    assert found[0]["weights"] == found[1]["weights"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_rank_ends_all_with_their_state_saved(tmp_path, rank):
    def work() -> Any:
        kill = At(4, lambda run: os.kill(os.getpid(), signal.SIGTERM), rank)
        return trained(request({"out": str(tmp_path / "run")}, callbacks=[kill]))

    found = on_ranks(work)
    assert [(rank["status"], rank["code"], rank["steps"]) for rank in found] == [("interrupted", 143, 4)] * 2
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-4").is_dir()


def test_a_gradient_that_is_not_finite_on_one_rank_stops_all_before_the_update(tmp_path):
    def work() -> Any:
        return trained(request({"out": str(tmp_path / "run")}, callbacks=[NoNumber(2)]))

    found = on_ranks(work)
    assert [rank["error"] for rank in found] == ["Diverged"] * 2
    # The report names the samples of all ranks.
    assert all(line.count(",") >= 4 for rank in found for line in rank["text"].splitlines() if "samples" in line)


def test_a_gradient_that_is_not_finite_on_one_rank_is_skipped_by_all(tmp_path):
    def work() -> Any:
        settings = {"out": str(tmp_path / "run"), "loop.nan_policy": "skip"}
        return trained(request(settings, callbacks=[NoNumber(2)]))

    found = on_ranks(work)
    assert [rank["steps"] for rank in found] == [9, 9]
    assert found[0]["weights"] == found[1]["weights"]


def test_only_the_first_rank_writes(tmp_path):
    found = on_ranks(lambda: trained(request({"out": str(tmp_path / "run"), "loop.log_every_steps": 1})))
    assert [rank["status"] for rank in found] == ["done", "done"]
    log = [row for row in rows(tmp_path / "run" / "metrics.jsonl") if "train/loss" in row]
    assert [row["step"] for row in log] == list(range(1, 11))
    assert "devices = 2" in (tmp_path / "run" / "config.toml").read_text()


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"loop.batch_size": 1}, "UsageError", "a batch of 1 samples cannot be shared by 2 ranks"),
        ({"devices": 3}, "UsageError", "3 devices are asked for, and torchrun has started 2 processes"),
        ({"folds": 3}, "UsageError", "folds are runs on one device each"),
        ({"lr_find": True}, "UsageError", "a learning rate is looked for on one device"),
    ],
)
def test_what_ranks_cannot_do_is_refused_by_all(tmp_path, settings, error, text):
    found = on_ranks(lambda: trained(request({"out": str(tmp_path / "run"), **settings})))
    assert [rank["error"] for rank in found] == [error] * 2
    assert all(text in rank["text"] for rank in found)
    assert not (tmp_path / "run").exists()


def test_ranks_that_see_other_data_are_refused(tmp_path):
    def work() -> Any:
        samples = 21 + int(os.environ["RANK"])
        return trained(request({"out": str(tmp_path / "run")}, task=TinyTask(samples=samples)))

    assert [rank["error"] for rank in on_ranks(work)] == ["DataError"] * 2


def test_several_devices_are_no_business_of_one_process(tmp_path):
    with pytest.raises(SeveralRanks, match="takes 2 devices") as asked:
        trained(request({"out": str(tmp_path / "run"), "devices": 2}))
    assert asked.value.ranks == 2
    assert not (tmp_path / "run").exists()


def test_half_of_the_variables_of_torchrun_are_refused():
    with pytest.raises(UsageError, match="but not LOCAL_RANK, MASTER_ADDR, MASTER_PORT"):
        world_of({"RANK": "0", "WORLD_SIZE": "2"})
    assert world_of({"PATH": "x"}).is_alone

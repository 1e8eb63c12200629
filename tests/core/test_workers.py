"""How many processes prepare batches is measured, and changes no batch."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import trainkit.workers
from trainkit.api import start
from trainkit.contracts import Sample
from trainkit.costs.cost import measure
from trainkit.data import BatchMaker, EpochBatches, draw
from trainkit.errors import DataError
from trainkit.plan import Stage
from trainkit.testing.tiny import TinyData, TinyTask, tiny_request, tiny_run
from trainkit.workers import Trial, Workers, candidates, has_room

forks = pytest.mark.skipif(not candidates(), reason="processes are not forked here, or there is one core only")


class SlowData(TinyData):
    """Take time for each sample, as reading and decoding a file does."""

    def __init__(self, count: int, seconds: float) -> None:
        super().__init__(count, 1)
        self.seconds = seconds
        self.parent = os.getpid()

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        time.sleep(self.seconds * len(indices))
        return super().__getitems__(indices)

    @property
    def in_worker(self) -> bool:
        return os.getpid() != self.parent


class ScaledNoise:
    """Augment by a number that depends on the sample's own generator."""

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        return {**sample, "tokens": sample["tokens"] * int(generator.integers(1, 3)) % 13}


def batches_of(data: TinyData) -> EpochBatches:
    return EpochBatches(BatchMaker(data, TinyTask().collate, [ScaledNoise()], 5), draw(range(len(data)), 1, 5, 1), 1, 2)


def trial(workers: int, wait: float, work: float, start: float = 0.0, count: int = 100) -> Trial:
    found = Trial(workers)
    for place in range(count):
        if not found.is_over:
            found.note(place, start if place == 0 else wait, work)
    return found


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any waiting be worth a trial, and a few batches be enough."""
    monkeypatch.setattr(trainkit.workers, "COUNTED", 6)
    monkeypatch.setattr(trainkit.workers, "WORTH_SECONDS", 0.0)


class TestTrial:
    def test_the_first_ones_do_not_count_but_a_start_of_processes_does(self) -> None:
        found = trial(4, wait=0.01, work=0.03, start=0.5)
        assert (len(found.waits), found.seen) == (20, 28)
        assert found.per_batch == pytest.approx(0.04)
        assert found.share == pytest.approx(0.25)
        assert found.seconds(100) == pytest.approx(4.5)
        assert trial(0, 0.01, 0.03, start=0.5).seconds(100) == pytest.approx(4.0)

    def test_an_evaluation_between_two_batches_does_not_count(self) -> None:
        found = trial(0, wait=0.01, work=0.03)
        found.works[3] = 60.0
        assert found.per_batch == pytest.approx(0.04)

    def test_epochs_that_are_shorter_than_a_start_never_win(self) -> None:
        found = Trial(4)
        while not found.is_over:
            for place in range(5):
                found.note(place, 0.0, 0.0)
        assert found.seconds(5) == float("inf")

    def test_waiting_is_worth_a_trial_by_its_share_and_its_seconds(self) -> None:
        assert trial(0, 0.03, 0.03).is_worth_more(100)
        assert not trial(0, 0.03, 0.03).is_worth_more(20)
        assert not trial(0, 0.002, 0.03).is_worth_more(10_000)


class TestChoice:
    def conclude(self, *trials: Trial, batches: int = 1000) -> Workers:
        workers = Workers("auto")
        for each in trials:
            assert workers.trial is not None
            assert workers.trial.workers == each.workers
            workers._conclude(each, batches, {"x": torch.zeros(4)})
        return workers

    @pytest.fixture(autouse=True)
    def four_cores(self, eager: None, monkeypatch: pytest.MonkeyPatch) -> None:
        del eager
        monkeypatch.setattr(trainkit.workers, "candidates", lambda: [2, 4])

    def test_data_in_memory_is_left_alone(self) -> None:
        workers = self.conclude(trial(0, 0.001, 0.03))
        assert (workers.now, workers.trial) == (0, None)
        assert workers.reason == "loading takes 3% of the time without processes"

    def test_two_are_enough_where_nothing_is_left_to_wait_for(self) -> None:
        workers = self.conclude(trial(0, 0.02, 0.03), trial(2, 0.001, 0.031, start=0.1))
        assert (workers.now, workers.trial) == (2, None)
        assert [found["workers"] for found in workers.document()["trials"]] == [0, 2]

    def test_four_are_tried_where_two_still_wait_and_stay_if_they_are_faster(self) -> None:
        slow = (trial(0, 0.1, 0.01), trial(2, 0.045, 0.01))
        assert self.conclude(*slow, trial(4, 0.015, 0.01)).now == 4
        assert self.conclude(*slow, trial(4, 0.044, 0.01)).now == 2

    def test_processes_that_gain_nothing_are_given_up(self) -> None:
        workers = self.conclude(trial(0, 0.02, 0.03), trial(2, 0.005, 0.044))
        assert (workers.now, workers.trial) == (0, None)
        assert "2: 49 s" in workers.reason

    def test_a_start_that_costs_more_than_it_saves_is_not_made_each_epoch(self) -> None:
        trials = trial(0, 0.02, 0.03), trial(2, 0.0, 0.03, start=0.5)
        assert self.conclude(*trials, batches=10).now == 0
        assert self.conclude(*trials, batches=100).now == 2

    def test_nothing_is_tried_without_room_in_shared_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trainkit.workers, "has_room", lambda batch, workers: False)
        workers = self.conclude(trial(0, 0.02, 0.03))
        assert (workers.now, workers.trial) == (0, None)
        assert "too little room" in workers.reason

    def test_a_number_is_taken_as_it_is(self) -> None:
        workers = Workers(3)
        assert (workers.now, workers.trial) == (3, None)


def test_room_is_that_of_all_batches_that_may_be_ready() -> None:
    batch = {"x": torch.zeros(1000), "name": "not counted"}
    assert has_room(batch, 2, lambda _: 48_000)
    assert not has_room(batch, 2, lambda _: 47_999)

    def unknown(_: Any) -> int:
        raise FileNotFoundError

    assert has_room(batch, 2, unknown)


@forks
@pytest.mark.usefixtures("eager")
class TestStream:
    def test_batches_are_those_of_one_process_through_all_trials(self) -> None:
        data = SlowData(160, 0.002)
        batches = batches_of(data)
        workers = Workers("auto")
        found = list(workers.stream(batches, 3, False))
        alone = list(batches.iterate(3, 0, False))
        assert len(found) == len(alone) == 77
        for one, other in zip(alone, found, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)
        assert [each.workers for each in workers.done][:2] == [0, 2]
        assert workers.trial is None
        assert workers.now in (0, 2, 4)
        assert workers.reason.startswith("loading takes")

    def test_a_trial_goes_on_in_the_next_epoch_and_an_abandoned_epoch_ends_its_processes(self) -> None:
        batches = batches_of(SlowData(30, 0.001))
        workers = Workers("auto")
        for _ in range(5):
            for _ in workers.stream(batches, 0, False):
                pass
        assert [each.workers for each in workers.done][:2] == [0, 2]
        stream = workers.stream(batches, 0, False)
        next(stream)
        del stream
        assert _children() == []

    @pytest.mark.parametrize("how", ["raise", "exit", "hang"])
    def test_what_fails_in_a_trial_is_done_without_processes(
        self, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Failing(SlowData):
            def __getitems__(self, indices: list[int]) -> list[Sample]:
                if self.in_worker:
                    actions: dict[str, Callable[[], Any]] = {
                        "raise": lambda: 1 // 0,
                        "exit": lambda: os.kill(os.getpid(), signal.SIGKILL),
                        "hang": lambda: time.sleep(60),
                    }
                    actions[how]()
                return super().__getitems__(indices)

        monkeypatch.setattr(trainkit.workers, "PATIENCE_SECONDS", 0.5)
        # How long PyTorch waits for a process to end by itself before it kills it.
        monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
        batches = batches_of(Failing(40, 0.002))
        workers = Workers("auto")
        assert len(list(workers.stream(batches, 0, False))) == 20
        assert (workers.now, workers.trial) == (0, None)
        assert "2 processes failed" in workers.reason
        assert "prepared by 0 processes from here on" in caplog.text
        assert _children() == []

    def test_what_is_wrong_with_a_sample_is_said_as_ever(self) -> None:
        class Broken(SlowData):
            def __getitems__(self, indices: list[int]) -> list[Sample]:
                if 17 in indices:
                    raise DataError("this sample is broken")
                return super().__getitems__(indices)

        with pytest.raises(DataError, match="this sample is broken"):
            list(Workers("auto").stream(batches_of(Broken(40, 0.002)), 0, False))

    def test_a_run_comes_to_the_same_bits(self, tmp_path: Any) -> None:
        class SlowTask(TinyTask):
            def collate(self, samples: Any) -> Any:
                time.sleep(0.004)
                return super().collate(samples)

        found = {}
        for workers in (0, "auto"):
            settings = {"out": str(tmp_path / str(workers)), "loop.workers": workers, "loop.batch_size": 2}
            done = start(tiny_request(settings, task=SlowTask(samples=60), stages=[Stage(epochs=1)]))
            weights = {name: value.clone() for name, value in done.model.state_dict().items()}
            found[workers] = (done, weights)
        alone, chosen = found[0][0].summary, found["auto"][0].summary
        assert [each["workers"] for each in chosen["loading"]["trials"]][:2] == [0, 2]
        assert alone["loading"] == {"workers": 0, "reason": "", "trials": []}
        assert alone["results"] == chosen["results"]
        assert all(torch.equal(found[0][1][name], found["auto"][1][name]) for name in found[0][1])


def test_the_forecast_of_a_run_counts_loading() -> None:
    class SlowTask(TinyTask):
        def collate(self, samples: Any) -> Any:
            time.sleep(0.03)
            return super().collate(samples)

    cost = measure(tiny_run(task=SlowTask()))
    assert cost.seconds_per_step > 0.03
    assert cost.loading_share > 0.1


def _children() -> list[int]:
    """Return the processes that this one has, a moment after it ended some."""
    for _ in range(50):
        found = list(_living())
        if not found:
            break
        time.sleep(0.1)
    return found


def _living() -> Iterator[int]:
    import multiprocessing

    for child in multiprocessing.active_children():
        if child.pid is not None and child.is_alive():
            yield child.pid

from __future__ import annotations

import copy
import dataclasses
import json
import math
import random
import signal

import pytest
from torch.optim import lr_scheduler
from trainkit import UsageError, hookimpl
from trainkit.api import Request, preview, resume, start
from trainkit.checkpoint import Checkpoints
from trainkit.contracts import Splits
from trainkit.rundir import rows
from trainkit.testing import SchedulerConformance
from trainkit.testing.scheduler import optimizer
from trainkit.testing.tiny import Stage, TinyTask, tiny_request, tiny_run
from trainkit_scheduler_plateau.plateau import Plateau, improves


class TestPlateau(SchedulerConformance):
    component = "plateau"


class TestPlateauWithWarmup(SchedulerConformance):
    component = "plateau"
    options = {"warmup": 0.2, "patience": 1, "cooldown": 2, "factor": 0.5, "floor": 0.1}


def rate(scheduler):
    return scheduler.optimizer.param_groups[0]["lr"]


def test_the_third_bad_value_of_patience_two_lowers_the_rate():
    scheduler = Plateau(optimizer(), 100, patience=2)
    found = []
    for value in (1.0, 1.0, 1.0, 1.0):
        scheduler.evaluated(value)
        found.append(rate(scheduler))
    assert found == [1.0, 1.0, 1.0, 0.1]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("cooldown", [0, 3])
@pytest.mark.parametrize("patience", [0, 2])
def test_equals_pytorch(mode, cooldown, patience):
    draw = random.Random(cooldown)
    options = {"factor": 0.5, "patience": patience, "threshold": 0.01, "cooldown": cooldown, "mode": mode}
    ours = Plateau(optimizer(), 100, floor=0.01, **options)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer(), min_lr=0.01, eps=0, **options)
    lowered = 0
    for step in range(200):
        value = math.nan if step % 29 == 7 else 1 + draw.random() + (step if mode == "max" else -step) / 500
        before = rate(ours)
        ours.evaluated(value)
        theirs.step(value)
        lowered += rate(ours) < before
        assert rate(ours) == pytest.approx(rate(theirs), rel=1e-12)
    assert lowered > 3


def test_an_improvement_is_a_share_of_the_size_of_the_best():
    assert improves(0.98, 1.0, 0.01)
    assert not improves(0.995, 1.0, 0.01)
    assert improves(-1.02, -1.0, 0.01)
    assert not improves(-1.005, -1.0, 0.01)
    assert not improves(math.nan, 1.0, 0.01)
    assert not improves(math.inf, None, 0.01)


def settings(**more):
    rates = {"optimizer.lr": 0.5, "loop.batch_size": 4, "evaluate.every_steps": 2, "checkpoint.every_epochs": 3}
    return {"scheduler": "plateau", "scheduler.patience": 1, "scheduler.factor": 0.5, **rates, **more}


class StopAt:
    """Stop the run as a signal does, the first time that an event comes at or after a step."""

    def __init__(self, event, step):
        self.event, self.step = event, step

    def hear(self, event, run):
        if (event, run.signal) == (self.event, None) and run.moment.step >= self.step:
            run.signal, self.event = signal.SIGUSR1, ""

    @hookimpl
    def on_step(self, run):
        self.hear("step", run)

    @hookimpl
    def before_evaluation(self, run):
        self.hear("evaluation", run)

    @hookimpl
    def on_log(self, run, row):
        if "val/loss" in row:
            self.hear("row", run)


def state_of(out):
    checkpoint = Checkpoints(out / "checkpoints", read_only=True).newest_valid()
    weights = {name: value.tolist() for name, value in checkpoint.tensors("model.safetensors").items()}
    found = [{k: v for k, v in row.items() if k[:5] != "time/"} for row in rows(out / "metrics.jsonl")]
    return weights, checkpoint.document("state.json")["scheduler"], found


def test_a_run_lowers_its_rate_and_four_stops_change_nothing(tmp_path):
    def request(out):
        return tiny_request(settings(out=str(out)), stages=[Stage(epochs=6)])

    assert start(request(tmp_path / "alone")).status == "done"
    weights, state, found = state_of(tmp_path / "alone")
    seen = [row["train/learning_rate"] for row in found if "train/learning_rate" in row]
    assert len(set(seen)) >= 3, "the rate was lowered at least twice"
    assert seen == sorted(seen, reverse=True)
    asked = request(tmp_path / "stopped")
    again = Request((), asked.live, asked.registry, report=asked.report)
    stops = [StopAt("step", 5), StopAt("evaluation", 10), StopAt("row", 16), StopAt("step", 27), None]
    for number, stop in enumerate(stops):
        listeners = [] if stop is None else [("stop", stop)]
        if number:
            result = resume(tmp_path / "stopped", dataclasses.replace(again, listeners=listeners))
        else:
            result = start(dataclasses.replace(asked, listeners=listeners))
        assert result.status == ("done" if stop is None else "stopped")
    assert state_of(tmp_path / "stopped") == (weights, state, found)


def test_a_metric_that_rises_is_known_to(monkeypatch):
    heard = []
    monkeypatch.setattr(Plateau, "evaluated", lambda self, value: heard.append(value))
    run = tiny_run(settings(metric=["token-accuracy"], **{"scheduler.monitor": "val/token-accuracy"}))
    scheduler = run.make_scheduler(10)
    for split, results in (("val", {"val/token-accuracy": 0.25}), ("test", {"test/loss": 1.0}), ("val", {})):
        scheduler.after_evaluation(run, split, results)
    assert heard == [-0.25]


def test_evaluations_in_the_warmup_do_not_count():
    run = tiny_run(settings(**{"scheduler.warmup": 3}))
    scheduler = run.make_scheduler(10)
    for _ in range(20):
        scheduler.after_evaluation(run, "val", {"val/loss": 1.0})
    assert (scheduler.best, scheduler.reduced) == (None, 1.0)


def test_a_stage_with_a_schedule_of_its_own_begins_anew(tmp_path):
    stages = [Stage(name="a", epochs=4), Stage(name="b", epochs=1, restart_schedule=True)]
    seen = []

    class Rates:
        @hookimpl
        def on_stage_start(self, run):
            seen.append(copy.deepcopy(run.scheduler.state_dict()))

        @hookimpl
        def on_stage_end(self, run):
            seen.append(copy.deepcopy(run.scheduler.state_dict()))

    start(tiny_request(settings(out=str(tmp_path / "run")), stages=stages, callbacks=[Rates()]))
    assert seen[1]["reduced"] < 1.0
    assert seen[2] == seen[0] == {"step": 0, "reduced": 1.0, "best": None, "bad": 0, "resting": 0}


class WithoutValidation(TinyTask):
    def read(self, data, seed):
        splits = super().read(data, seed)
        return Splits(splits.train, fingerprint=splits.fingerprint)


def test_data_without_a_validation_split_is_refused():
    with pytest.raises(UsageError, match="waits for val/loss, which this run does not measure") as refused:
        preview(task=WithoutValidation, scheduler="plateau", strategy="baseline")
    assert "the data has no validation split" in refused.value.why
    assert "--scheduler cosine" in refused.value.do
    assert preview(task=WithoutValidation, strategy="baseline").warnings == ()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"evaluate.every_epochs": None}, "nothing is evaluated before the end"),
        ({"scheduler.monitor": "val/lose"}, "did you mean 'val/loss'"),
        ({"scheduler.monitor": "val/loss/nill"}, "val/loss/nll"),
        ({"scheduler.monitor": "train/loss"}, "scheduler.monitor"),
        ({"scheduler.factor": 1.0}, "scheduler.factor: "),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, wrong, text):
    asked = settings(out=str(tmp_path / "run"), **{"evaluate.every_steps": None, **wrong})
    with pytest.raises(UsageError, match=text.partition(" ")[0]) as refused:
        start(tiny_request(asked))
    assert text in str(refused.value)
    # The parts of a loss are known when it is first evaluated; everything else is refused before.
    if "nill" not in json.dumps(wrong):
        assert not (tmp_path / "run").exists()

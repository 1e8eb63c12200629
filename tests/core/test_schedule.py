"""Schedulers in general: the warm-up, what a run asks of them, and what is refused or told before it begins."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from trainkit import UsageError, hookimpl
from trainkit.api import preview, start
from trainkit.curve import check_schedule, learning_rate_curve
from trainkit.draft import Draft, make_draft
from trainkit.live import Run
from trainkit.loop import train
from trainkit.plan import Stage
from trainkit.rundir import rows
from trainkit.schedule import FactorScheduler, linear_rise, steps_of, warmup_steps
from trainkit.testing.tiny import TinyStrategy, TinyTask, tiny_request, tiny_run

NAMES = [
    "constant", "cosine", "cosine-restarts", "exponential", "linear", "one-cycle", "plateau", "polynomial", "wsd",
]  # fmt: skip


class Halving(FactorScheduler):
    """Halve the rate in each step after the warm-up."""

    def factor(self, step: int) -> float:
        """Return the factor."""
        return 0.5**step


def sgd(lr: Any = 1.0) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def draft_of(settings: Mapping[str, Any] | None = None, **arguments: Any) -> Draft:
    request = tiny_request(settings, **arguments)
    return make_draft(request.layers, request.registry, request.live)


class Rates:
    """Note the learning rate of every update."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    @hookimpl
    def on_step(self, run: Run) -> None:
        self.seen.append(run.optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("length", "total", "steps"), [(0.1, 110, 11), (0.1, 5, 0), (0.99, 2, 1), (7, 8, 7), (0, 1, 0), (0.29, 100, 29)]
)
def test_a_length_is_steps_or_a_fraction(length: float, total: int, steps: int) -> None:
    assert steps_of(length, total) == warmup_steps(length, total) == steps


@pytest.mark.parametrize("total", [100, 40])
def test_a_warmup_that_leaves_nothing_is_refused(total: int) -> None:
    with pytest.raises(UsageError, match=f"the warm-up of 100 steps leaves none of the {total} steps") as refused:
        Halving(sgd(), total, warmup=100)
    assert refused.value.where == "scheduler.warmup"


def test_a_warmup_reaches_the_peak_without_wasting_the_first_step() -> None:
    assert [linear_rise(step, 10) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert [linear_rise(step, 10, start=0.0) for step in (0, 5, 9)] == pytest.approx([0.0, 0.5, 0.9])
    assert [linear_rise(step, 10, start=0.1) for step in (0, 5)] == pytest.approx([0.1, 0.55])


def test_what_comes_after_the_warmup_counts_from_its_end() -> None:
    scheduler = Halving(sgd(), 8, warmup=4)
    assert scheduler.steps == 4
    assert [scheduler.factor_at(step) for step in range(7)] == [0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 0.25]


def test_the_state_is_the_step() -> None:
    scheduler, other = Halving(sgd(), 100), Halving(sgd(), 100)
    for _ in range(7):
        scheduler.optimizer.step()
        scheduler.step()
    assert scheduler.state_dict() == {"step": 7}
    other.load_state_dict({"step": 7})
    assert other.get_last_lr() == scheduler.get_last_lr() == [0.5**7]
    assert other.optimizer.param_groups[0]["lr"] == 0.5**7


def test_a_learning_rate_may_be_a_tensor() -> None:
    adam = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=torch.tensor(1.0), foreach=False)
    scheduler = Halving(adam, 110)
    before = adam.param_groups[0]["lr"]
    for _ in range(2):
        scheduler.step()
    assert adam.param_groups[0]["lr"] is before
    assert float(before) == 0.25


def test_a_stage_begins_anew_at_another_rate() -> None:
    """The core sets a new rate, drops initial_lr and builds a scheduler for the stage alone."""
    optimizer = sgd(1.0)
    Halving(optimizer, 10)
    for group in optimizer.param_groups:
        group["lr"] = 0.25
        group.pop("initial_lr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = Halving(optimizer, 20)
    assert second.get_last_lr() == [0.25]


@pytest.mark.parametrize("name", NAMES)
def test_the_curve_is_what_the_run_does(name: str) -> None:
    """The drawing, made without a model, holds the very rates of the updates; nothing plateaus in so short a run."""
    heard = Rates()
    stages = [Stage(name="a", epochs=3), Stage(name="b", epochs=2, lr_factor=0.5), Stage(name="c", epochs=2)]
    stages[2] = stages[2].model_copy(update={"restart_schedule": True})
    settings = {"scheduler": name, "optimizer.lr": 0.01, "loop.batch_size": 5}
    train(tiny_run(settings, stages=stages, callbacks=[heard]))
    curve = learning_rate_curve(draft_of(settings, stages=stages))
    assert [step for step, _ in curve] == list(range(35))
    assert [rate for _, rate in curve] == pytest.approx(heard.seen, rel=1e-12)


def test_a_long_curve_asks_at_the_points_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(FactorScheduler, "set_rates", lambda self: asked.append(self.last_epoch))
    assert len(learning_rate_curve(draft_of(stages=[Stage(steps=10**6)]), 50)) == 50
    assert len(asked) < 1200


@pytest.mark.parametrize(("accumulate", "skipped"), [(1, set()), (3, set()), (1, {1, 4}), (3, {0, 3})])
def test_one_step_of_the_scheduler_for_each_update(accumulate: int, skipped: set[int]) -> None:
    """Neither micro-batches nor updates that were skipped count."""
    heard = Rates()

    class Poison:
        windows = 0

        @hookimpl
        def on_loss(self, run: Run, loss: Any) -> Any:
            if run.moment.window in skipped:
                loss.sum = loss.sum * math.nan
            return loss

    settings = {"loop.batch_size": 4, "loop.accumulate": accumulate, "loop.nan_policy": "skip", "scheduler": "linear"}
    settings |= {"optimizer.lr": 1.0, "scheduler.warmup": 0}
    run = tiny_run(settings, callbacks=[heard, Poison()], stages=[Stage(epochs=4)])
    train(run)
    assert run.moment.skipped_total == len(skipped)
    assert run.total_steps == 4 * math.ceil(6 / accumulate)
    assert len(heard.seen) == run.moment.step == run.total_steps - len(skipped)
    assert heard.seen == pytest.approx([1 - step / run.total_steps for step in range(len(heard.seen))])


class Hearing(FactorScheduler):
    """Note which events are heard."""

    heard: list[str]

    def __init__(self, optimizer: torch.optim.Optimizer, total_steps: int) -> None:
        self.own: list[str] = []
        super().__init__(optimizer, total_steps)

    def factor(self, step: int) -> float:
        """Return 1."""
        return 1.0

    @hookimpl
    def on_stage_start(self, stage: Stage) -> None:
        self.own.append(f"start {stage.name}")

    @hookimpl
    def on_step(self) -> None:
        self.own.append("step")

    @hookimpl
    def on_stage_end(self, stage: Stage) -> None:
        self.own.append(f"end {stage.name}")

    @hookimpl
    def on_run_end(self, status: str) -> None:
        self.own.append(status)


def test_a_scheduler_hears_events_as_long_as_its_schedule_lasts(tmp_path: Path) -> None:
    made: list[Hearing] = []

    def hearing(optimizer: torch.optim.Optimizer, total_steps: int) -> Hearing:
        made.append(Hearing(optimizer, total_steps))
        return made[-1]

    stages = [Stage(name="a", steps=1), Stage(name="b", steps=2), Stage(name="c", steps=1, restart_schedule=True)]
    start(tiny_request({"out": str(tmp_path / "run")}, stages=stages, scheduler=hearing))
    first, second = made[-2:]
    assert first.own == ["start a", "step", "end a", "start b", "step", "step", "end b"]
    assert second.own == ["start c", "step", "end c", "done"]
    assert all(other.own == [] for other in made[:-2]), "what only checks and draws hears nothing"


@pytest.mark.parametrize(("steps", "warned"), [(1, False), (2, True)])
def test_many_steps_at_a_rate_of_0_are_told_in_plan_and_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, steps: int, warned: bool
) -> None:
    def late(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step < 100 - steps))

    arguments: dict[str, Any] = {"stages": [Stage(steps=100)], "scheduler": late}
    (said,) = check_schedule(draft_of(**arguments)) or [""]
    assert said.startswith(f"the learning rate is 0 on {steps / 100:.0%} of the steps") == warned
    with caplog.at_level(logging.WARNING, logger="trainkit"):
        out = tmp_path / "run"
        seldom = {"evaluate.every_epochs": None, "checkpoint.every_epochs": None}
        start(tiny_request({"out": str(out), **seldom}, **arguments))
    assert [record.getMessage() for record in caplog.records] == ([said] if warned else [])
    assert json.loads((out / "plan.json").read_text())["warnings"] == ([said] if warned else [])


def test_what_a_scheduler_warns_of_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"out": str(tmp_path / "run"), "scheduler": "cosine-restarts", "scheduler.eta_min": 0.5}
    stages = [Stage(name=name, epochs=2, restart_schedule=True) for name in "ab"]
    with caplog.at_level(logging.WARNING, logger="trainkit"):
        start(tiny_request(settings, stages=stages))
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "scheduler.eta_min is 0.5, above the learning rate of 0.001: the rate stays 0.001"


def test_a_live_scheduler_is_left_alone_by_the_check() -> None:
    optimizer = sgd()
    live = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    assert preview(task=TinyTask, strategy=TinyStrategy([Stage(epochs=1)]), scheduler=live).warnings == ()
    assert live.last_epoch == 0


def test_a_live_optimizer_keeps_its_rate_through_the_check() -> None:
    optimizer = sgd(0.3)
    preview(task=TinyTask, strategy=TinyStrategy([Stage(epochs=1)]), optimizer=optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.3
    assert "initial_lr" not in optimizer.param_groups[0]


class Planned(torch.optim.SGD):
    """Set the rates itself, unless told otherwise.

    Args:
        lr: learning rate.
        alone: whether it sets the rates itself.
    """

    def __init__(self, params: Any, lr: float = 0.1, alone: bool = True) -> None:
        super().__init__(params, lr)
        self.takes_scheduler = not alone


STRATEGY = {"scheduler.use": "cosine", "scheduler.warmup": 0.3}


def planned(settings: Mapping[str, Any], **arguments: Any) -> Draft:
    task, strategy = TinyTask, TinyStrategy([Stage(epochs=5)], STRATEGY)
    return preview(task=task, strategy=strategy, optimizer=Planned, settings=settings, **arguments)


def test_an_optimizer_that_takes_no_scheduler_gets_none() -> None:
    draft = planned({})
    assert draft.config["scheduler.use"] == "constant"
    assert "scheduler.warmup" not in draft.config
    assert str(draft.config.history["scheduler.use"][-1]).startswith('"constant" from optimizer live:Planned: ')
    assert {rate for _, rate in learning_rate_curve(draft)} == {0.1}
    assert planned({"optimizer.alone": False}).config["scheduler.use"] == "cosine"
    assert planned({}, scheduler="constant").config["scheduler.use"] == "constant"


@pytest.mark.parametrize(
    ("settings", "texts"),
    [
        ({"scheduler": "linear"}, ["takes no scheduler (got linear)", "where: scheduler.use, settings argument"]),
        ({"scheduler.warmup": 0.5}, ["takes no scheduler, so scheduler.warmup has no effect", "leave it out"]),
        ({"scheduler": "constant", "scheduler.warmup": 2}, ["so scheduler.warmup has no effect"]),
    ],
)
def test_an_optimizer_that_takes_no_scheduler_refuses_one_that_was_asked_for(
    settings: Mapping[str, Any], texts: list[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        planned(settings)
    for text in [*texts, "takes_scheduler is False"]:
        assert text in str(refused.value)


def test_a_run_without_a_scheduler_keeps_its_rate(tmp_path: Path) -> None:
    out = tmp_path / "run"
    start(tiny_request({"out": str(out), "loop.log_every_steps": 1}, optimizer=Planned))
    assert {row["train/learning_rate"] for row in rows(out / "metrics.jsonl") if "train/loss" in row} == {0.1}

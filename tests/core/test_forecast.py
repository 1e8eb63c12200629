"""What is left of a plan, and how long it will take: counted by hand, on a clock of the test's own."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from trainkit.api import cost_of, preview, resume, run
from trainkit.compose import compose
from trainkit.costs.ahead import Ahead, ahead, ahead_of, epoch_ends
from trainkit.costs.forecast import FEWEST_STEPS, Forecast
from trainkit.costs.prices import price_of, price_table, read_prices
from trainkit.costs.probe import estimate
from trainkit.costs.whole import left_of_whole, spent_on_whole
from trainkit.errors import UsageError
from trainkit.folds.plan import plan_folds
from trainkit.loop import enter_stage
from trainkit.moment import Moment
from trainkit.partof import PartOf
from trainkit.plan import Stage, StageLength
from trainkit.rundir import rows
from trainkit.settings import EvaluateSettings
from trainkit.stages import PlannedStage
from trainkit.testing import tiny
from trainkit.testing.resuming import StopAt

LENGTHS = {"train": 40, "val": 8, "test": 6}


def planned(*lengths: tuple[int, int]) -> list[PlannedStage]:
    """Return stages of (epochs, steps of an epoch)."""
    stages, step, epoch = [], 0, 0
    for number, (epochs, per_epoch) in enumerate(lengths):
        length = StageLength(samples=per_epoch, steps_per_epoch=per_epoch, epochs=epochs, steps=epochs * per_epoch)
        stages.append(PlannedStage(Stage(name=f"s{number}", epochs=epochs), length, step, epoch))
        step, epoch = step + length.steps, epoch + epochs
    return stages


@pytest.mark.parametrize(
    ("settings", "moment", "steps", "evaluations"),
    [
        ({}, Moment(), (20, 30), 5),
        ({"every_epochs": 2}, Moment(), (20, 30), 3),
        ({"every_epochs": None}, Moment(), (20, 30), 1),
        # 4, 8, ... 48 are 12; of the ends 10, 20, ... 50 the two at 20 and 40 are among them.
        ({"every_steps": 4}, Moment(), (20, 30), 12 + 3),
        ({}, Moment(step=13, epoch=1, stage_started=True), (7, 30), 4),
        # The first stage ended at step 12: what is left is the second, whole.
        ({}, Moment(step=12, epoch=2, stage=1), (0, 30), 3),
        ({}, Moment(step=22, epoch=3, stage=1, stage_started=True, stage_step=12, stage_epoch=2), (0, 20), 2),
        ({}, Moment(step=50, epoch=5, stage=2), (0, 0), 0),
    ],
    ids=["all", "second epochs", "none", "steps too", "within", "ended early", "shifted", "over"],
)  # fmt: skip
def test_what_is_left_is_counted(settings, moment, steps, evaluations):
    left = ahead(planned((2, 10), (3, 10)), moment, EvaluateSettings(train_samples=10, **settings), LENGTHS)
    assert left == Ahead(steps, evaluations, evaluations + 1, evaluations * 8 + 10 + 8 + 6)


def test_without_validation_only_the_final_table_is_left():
    left = ahead(planned((2, 10)), Moment(), EvaluateSettings(), {"train": 40})
    assert (left.evaluations, left.rounds, left.samples) == (0, 1, 40)
    nothing = ahead(planned((2, 10)), Moment(), EvaluateSettings(final=False), {"train": 40})
    assert (nothing.rounds, nothing.samples) == (0, 0)


def test_epochs_end_where_their_steps_do():
    assert epoch_ends(planned((2, 10), (1, 7))) == [10, 20, 27]


class Clock:
    """Stand in for the clock of the machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def steps(self, forecast: Forecast, first: int, last: int, seconds: float, stage: int = 0) -> None:
        """Let steps be done, each taking so many seconds."""
        for step in range(first, last + 1):
            self.now += seconds
            forecast.stepped(step, stage)


def test_a_forecast_counts_steps_evaluations_and_later_stages(monkeypatch):
    clock = Clock(monkeypatch)
    forecast = Forecast()
    left = Ahead((91, 50), 4, 5, 100)
    clock.steps(forecast, 1, 1, 30.0)
    assert forecast.remaining(left) is None
    clock.steps(forecast, 2, 9, 2.0)
    forecast.expect([1.0, 3.0], sample_seconds=0.5, extra_seconds=7.0)
    assert forecast.remaining(left) == pytest.approx(91 * 2 + 50 * 6 + 100 * 0.5 + 5 * 7)
    assert forecast.is_founded == (FEWEST_STEPS <= 8)
    clock.now += 12
    forecast.evaluated(8.0, samples=10)
    forecast.evaluated(4.0, is_new=False)
    # What was measured stands in place of what was expected, and is no step's time.
    clock.steps(forecast, 10, 10, 2.0)
    assert forecast.remaining(left) == pytest.approx(91 * 2 + 50 * 6 + 100 * 0.8 + 5 * 4)


def test_what_was_tried_out_as_trained_outweighs_the_first_evaluations(monkeypatch):
    clock = Clock(monkeypatch)
    forecast, left = Forecast(), Ahead((90,), 0, 0, 0)
    clock.steps(forecast, 1, 10, 1.0)
    forecast.expect([1.0], sample_seconds=0.5, extra_seconds=4.0, is_as_trained=True)
    assert forecast.of_evaluations(left) == (0.5, 4.0)
    forecast.evaluated(1.0, samples=10)
    forecast.evaluated(1.0, is_new=False)
    # A tenth of the run is over.
    assert forecast.of_evaluations(left) == pytest.approx((0.9 * 0.5 + 0.1 * 0.1, 0.9 * 4 + 0.1 * 1))
    forecast.expect([1.0])
    assert forecast.of_evaluations(left) == pytest.approx((0.1, 1.0))


def test_a_run_expects_what_the_one_before_it_took(monkeypatch):
    clock = Clock(monkeypatch)
    before, forecast = Forecast(), Forecast()
    before.expect([1.0, 3.0], sample_seconds=0.1)
    before.evaluated(5.0, samples=10)
    before.evaluated(4.0, is_new=False)
    forecast.follow(before)
    clock.steps(forecast, 1, 10, 1.0)
    assert forecast.is_estimated
    assert forecast.remaining(Ahead((90, 10), 2, 3, 40)) == pytest.approx(90 + 10 * 3 + 40 * 0.5 + 3 * 4)


def test_the_last_three_evaluations_tell_of_those_to_come(monkeypatch):
    Clock(monkeypatch)
    forecast = Forecast()
    for seconds in (90.0, 1.0, 2.0, 3.0):
        forecast.evaluated(seconds, samples=10)
        forecast.evaluated(seconds, is_new=False)
    assert forecast.of_evaluations(Ahead((1,), 0, 0, 0)) == pytest.approx((0.2, 2.0))
    assert forecast.evaluating == 2 * 96


def test_the_first_part_of_a_whole_tells_what_later_ones_take(monkeypatch):
    built = compose(preview(task=f"{tiny.__file__}:TinyTask", strategy="baseline", settings={"loop.epochs": 10}))
    steps, clock = built.total_steps, Clock(monkeypatch)
    began = clock.now
    clock.now += 7
    built.forecast = Forecast()
    clock.steps(built.forecast, 0, 10, 1.0)
    built.forecast.expect([1.0], sample_seconds=0.5)
    samples = [{"train": 24, "val": 8}, {"train": 24, "val": 8}, {"train": 32, "test": 8}]
    built.part_of = PartOf(
        Path("run"), "fold 1/2", [steps, steps, steps // 2], 0, samples=samples, answers_again=True, began=began
    )
    # Seven seconds to begin, a second a step; ten evaluations, the final table and the rows of the fold, half a second
    # a sample. Of ten steps in eleven seconds the run knows.
    fold = 7 + steps + (10 * 8 + 8 + 24) * 0.5 + 8 * 0.5
    final = 7 + steps // 2 + (32 + 8) * 0.5
    left = fold - 8 * 0.5 - 18
    assert spent_on_whole(built) == 18
    assert left_of_whole(built, left) == pytest.approx(left + 8 * 0.5 + fold + final)
    built.part_of = None
    assert (spent_on_whole(built), left_of_whole(built, left)) == (11, left)


def test_the_first_steps_count_alike_and_a_new_stage_soon_speaks_for_itself(monkeypatch):
    clock = Clock(monkeypatch)
    forecast = Forecast()
    clock.steps(forecast, 0, 0, 9.0)
    for step, seconds in enumerate((4.0, 1.0, 1.0, 2.0), 1):
        clock.steps(forecast, step, step, seconds)
    assert forecast.per_step == pytest.approx(2.0)
    clock.steps(forecast, 5, 30, 2.0)
    clock.steps(forecast, 31, 60, 5.0, stage=1)
    assert forecast.remaining(Ahead((0, 100), 0, 0, 0)) == pytest.approx(500, rel=0.1)


def test_the_first_founded_forecast_is_kept(monkeypatch):
    clock = Clock(monkeypatch)
    forecast, left = Forecast(), Ahead((90,), 0, 0, 0)
    clock.steps(forecast, 1, 5, 1.0)
    forecast.keep_first(5, 95.0, left)
    assert forecast.first is None
    clock.steps(forecast, 6, 10, 1.0)
    # Of evaluations nothing is known yet.
    forecast.keep_first(10, 90.0, left)
    assert forecast.first is None
    forecast.expect([1.0])
    forecast.keep_first(10, 90.0, left)
    forecast.keep_first(10, 5.0, left)
    assert (forecast.first.step, forecast.first.steps, forecast.first.seconds) == (10, 100, pytest.approx(100))


def test_an_estimate_leaves_no_trace():
    draft = preview(
        task=f"{tiny.__file__}:TinyTask",
        strategy="phase2",
        callback=["no:tensorboard"],
        settings={"loop.epochs": 6, "stages.easy.trainable": ["head*"]},
    )
    built = compose(draft)
    enter_stage(built, built.stages[0])
    before = {name: value.clone() for name, value in built.model.state_dict().items()}
    learning = {name: parameter.requires_grad for name, parameter in built.learnable.items()}
    moment, counts, random = built.moment.state_dict(), built.inactive.state_dict(), torch.get_rng_state()
    estimate(built, ahead_of(built), built.total_steps)
    assert built.forecast.is_estimated
    assert built.forecast.evaluations == 0
    assert len(set(built.forecast.relative)) > 1
    assert all(torch.equal(value, before[name]) for name, value in built.model.state_dict().items())
    assert {name: parameter.requires_grad for name, parameter in built.learnable.items()} == learning
    assert all(parameter.grad is None for parameter in built.learnable.values())
    assert (built.moment.state_dict(), built.inactive.state_dict()) == (moment, counts)
    assert torch.equal(torch.get_rng_state(), random)


def test_a_run_compares_its_forecast_with_the_fact(tmp_path):
    settings = {"loop.epochs": 8, "out": str(tmp_path / "whole"), "evaluate.every_epochs": 2}
    parts = {"task": tiny.TinyTask(), "strategy": "baseline", "callback": ["no:tensorboard"]}
    told = run(**parts, settings=settings | {"loop.batch_size": 2}).summary["forecast"]
    assert (told["made_at_step"], told["steps"]) == (10, 96)
    rounded = 0.0005 * (1 + told["seconds"] / told["fact"]) / told["fact"]
    assert told["error"] == pytest.approx(told["seconds"] / told["fact"] - 1, abs=rounded + 1e-4)
    assert re.search(r"training time, forecast \d+ s \([+-]\d+ %\)", (tmp_path / "whole/report.html").read_text())
    short = run(**parts, settings=settings | {"loop.max_steps": 4, "out": str(tmp_path / "short")}).summary
    assert short["forecast"] is None


def test_memory_counts_what_components_keep():
    parts = {"task": f"{tiny.__file__}:TinyTask", "strategy": "baseline"}
    bare, averaged = (cost_of(preview(**parts, callback=["no:tensorboard", *more])) for more in ((), ("ema",)))
    # The average is as large as the weights, of 4 bytes each.
    assert averaged.component_bytes - bare.component_bytes == 4 * averaged.learning
    assert averaged.memory_bytes - averaged.component_bytes == bare.memory_bytes - bare.component_bytes


def test_a_cross_validation_takes_the_steps_and_evaluations_of_each_of_its_runs():
    draft = preview(task=f"{tiny.__file__}:TinyTask", strategy="baseline", settings={"folds": 2, "loop.epochs": 3})
    cost = SimpleNamespace(seconds_per_step=1.0, saving=2.0, seconds_per_sample=0.5, seconds_per_evaluation=10.0)
    folds = plan_folds(draft)
    fold, _, final = folds.folds
    sizes = fold.samples["train"], fold.samples["val"], final.samples["train"], final.samples["test"]
    assert sizes == (16, 16, 32, 8)
    # Three evaluations, the last of them beside the final table, which has the training samples, too.
    one = fold.steps + 2 + (3 * 16 + 16 + 16 + 16) * 0.5 + 4 * 10
    last = final.steps + 2 + (32 + 8) * 0.5 + 10
    assert folds.seconds(draft, cost) == pytest.approx(2 * one + last)


def test_prices_that_come_along_have_a_source_and_a_date():
    prices = price_table()
    assert len(prices) >= 5
    assert all(price.source and price.date and price.currency for price in prices)
    assert price_of("NVIDIA H100 PCIe", prices).per_hour < price_of("NVIDIA H100 80GB HBM3", prices).per_hour
    assert price_of("Some processor", prices) is None
    assert price_of("nvidia h200", prices).amount(7200, devices=2) == pytest.approx(4 * 4.59)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("price = [", "cannot be read"),
        ("prices = 1", r"something else than \[\[price\]\]"),
        ("[[price]]\ndevice = 'x'\nper_hour = -1\ncurrency = 'EUR'", r"per_hour: .*\[\[price\]\] number 1"),
        ("[[price]]\ndevice = 'x'\nper_hour = 1", "currency: field required"),
        ("[[price]]\ndevice = 'x'\nper_hour = 1\ncurrency = 'EUR'\ncolour = 'red'", "colour: extra"),
    ],
)
def test_a_broken_price_table_is_refused_with_its_place(tmp_path, text, message):
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"(?s)" + message) as refused:
        read_prices(path)
    assert str(path) in str(refused.value)


def test_the_users_own_prices_go_before_those_that_come_along(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINKIT_HOME", str(tmp_path))
    (tmp_path / "prices.toml").write_text("[[price]]\ndevice = '*H200*'\nper_hour = 1.5\ncurrency = 'EUR'\n")
    assert price_of("NVIDIA H200", price_table()).currency == "EUR"
    assert price_of("NVIDIA B200", price_table()).currency == "USD"


def test_a_resumed_run_that_forecasts_anew_comes_to_the_same_to_the_bit(tmp_path):
    parts = {
        "task": f"{tiny.__file__}:TinyTask",
        "strategy": "baseline",
        "callback": ["sample-outputs", "ema", "no:tensorboard"],
    }
    settings = {"loop.batch_size": 1, "loop.epochs": 6, "strategy.cpu_steps": None}
    whole = run(**parts, settings=settings | {"out": str(tmp_path / "whole")})
    cut = run(
        **parts, settings=settings | {"out": str(tmp_path / "cut")}, listeners=[("stop", StopAt(50, signal.SIGTERM))]
    )
    assert cut.summary["steps"] == 50
    told = [row["time/elapsed"] for row in rows(tmp_path / "cut/metrics.jsonl") if "time/elapsed" in row]
    time.sleep(0.3)
    began = time.perf_counter()
    resumed = resume(tmp_path / "cut")
    # What it took before counts, the time between does not.
    assert told[-1] < resumed.summary["seconds"] < told[-1] + time.perf_counter() - began
    assert whole.summary["forecast"]["made_at_step"] == 10
    assert resumed.summary["forecast"]["made_at_step"] == 60
    assert resumed.summary["results"] == whole.summary["results"]
    weights = resumed.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.model.state_dict().items())

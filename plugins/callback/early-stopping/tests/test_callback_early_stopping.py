from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from trainkit import UsageError
from trainkit.api import start
from trainkit.plan import Stage
from trainkit.testing import CallbackConformance
from trainkit.testing.resuming import assert_resumes
from trainkit.testing.tiny import tiny_request
from trainkit_callback_early_stopping.early_stopping import CycleMinimum, EarlyStopping, Judge, improves, is_falling


class FakeRun:
    """Stands for a run: notes what it is asked for."""

    def __init__(self, monitor="val/loss", mode="min"):
        self.monitor, self.monitor_mode = monitor, mode
        self.moment, self.stages = SimpleNamespace(progress=0.5, stage=0), ("only",)
        self.scheduler = None
        self.stopped, self.ended = [], []
        self.stop, self.end_stage = self.stopped.append, self.ended.append


def heard(callback, values, run, tag="val/loss"):
    for number, value in enumerate(values, 1):
        callback.after_evaluation(run, "val", {tag: value})
        if run.stopped or run.ended:
            return number
    return None


class TestEarlyStopping(CallbackConformance):
    component = "early-stopping"

    def used(self):
        callback = self.build()
        heard(callback, [1.0, 0.9, math.nan, 0.95], FakeRun())
        return callback


@pytest.mark.parametrize(
    ("values", "stop"), [([1.0, 0.9995, 0.9994], 3), ([1.0, 0.9, 0.9, 0.9], 4), ([1.0, 0.9, 0.8, 0.7], None)]
)
def test_plain_rule(values, stop):
    run = FakeRun()
    assert heard(EarlyStopping(patience=2, min_delta=0.001), values, run) == stop


def test_says_why():
    run = FakeRun()
    heard(EarlyStopping(patience=2), [1.0, 1.0, 1.0], run)
    assert run.stopped == ["no improvement of val/loss for 2 evaluations"]


def test_rising_values_are_taken_from_the_run_or_from_the_options():
    assert heard(EarlyStopping(patience=2), [0.1, 0.2, 0.3, 0.2, 0.3], FakeRun("val/f1", "max"), "val/f1") == 5
    assert (
        heard(EarlyStopping(patience=2, monitor="val/f1", mode="max"), [0.1, 0.2, 0.1, 0.1], FakeRun(), "val/f1") == 4
    )


@pytest.mark.parametrize(
    ("monitor", "values", "stop"),
    [
        ("val/loss/nll", [0.3, 0.2, 0.1, 0.2, 0.3], 5),
        ("val/f1", [0.3, 0.4, 0.5, 0.4, 0.3], 5),
        ("val/f1/micro", [0.5, 0.4, 0.3], 3),
        ("val/error", [0.3, 0.4, 0.5], 3),
    ],
)
def test_a_monitor_of_its_own_falls_or_rises_as_its_metric_does(monitor, values, stop):
    run = FakeRun("val/loss", "min")
    run.metrics = [
        SimpleNamespace(name=name, metric=SimpleNamespace(higher_is_better=rises))
        for name, rises in (("f1", True), ("error", False))
    ]
    assert heard(EarlyStopping(patience=2, monitor=monitor), values, run, monitor) == stop


def test_third_value_that_is_not_finite_ends_it():
    run = FakeRun()
    assert heard(EarlyStopping(patience=10), [1.0, math.nan, math.inf, math.nan], run) == 4
    assert run.stopped == ["val/loss was not finite for 3 evaluations"]
    assert heard(EarlyStopping(patience=10), [1.0, math.nan, math.nan, 0.9, math.nan], FakeRun()) is None


def test_in_stage_scope_the_stage_ends_and_the_next_begins_anew():
    run, callback = FakeRun(), EarlyStopping(patience=2, scope="stage")
    assert heard(callback, [1.0, 1.0, 1.0], run) == 3
    assert run.stopped == []
    callback.on_stage_start(run)
    run.ended.clear()
    assert heard(callback, [5.0, 4.0, 4.0], run) is None


def test_other_splits_failed_evaluations_and_the_last_one_are_not_judged():
    run, callback = FakeRun(), EarlyStopping(patience=1)
    callback.after_evaluation(run, "val", {"val/loss": 1.0})
    before = callback.state_dict()
    callback.after_evaluation(run, "test", {"test/loss": 9.0})
    callback.after_evaluation(run, "val", {})
    run.moment.progress = 1.0
    callback.after_evaluation(run, "val", {"val/loss": 9.0})
    run.moment.progress, run.moment.stage = 0.9, 1  # the last stage ended early
    callback.after_evaluation(run, "val", {"val/loss": 9.0})
    assert callback.state_dict() == before
    assert run.stopped == []


def test_a_value_that_no_evaluation_gives_is_an_error_that_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'val/accuracy'"):
        EarlyStopping(monitor="val/acuracy", mode="max").after_evaluation(FakeRun(), "val", {"val/accuracy": 1.0})


def test_resume_at_patience_two_of_three_stops_where_the_uninterrupted_run_would():
    values = [1.0, 1.0, 1.0]
    first, second, run = EarlyStopping(patience=3), EarlyStopping(patience=3), FakeRun()
    assert heard(first, values, run) is None
    second.load_state_dict(first.state_dict())
    assert heard(second, [1.0], run) == 1


def test_relative_improvement():
    assert improves(99.8, 100.0, 1e-3, relative=True)
    assert not improves(99.95, 100.0, 1e-3, relative=True)
    assert improves(99.95, 100.0, 1e-3, relative=False)


@pytest.mark.parametrize(
    ("values", "falling"),
    [([3, 2, 1], True), ([1, 2, 3], False), ([1, 1, 1], False), ([2, 1], False), ([1, 2, 0.9, 2.1, 1], False)],
)
def test_slope_must_be_negative_beyond_its_error(values, falling):
    assert is_falling(values) == falling


def test_adaptive_is_twice_as_patient_while_values_fall():
    falling = [1.0 - 0.0004 * step for step in range(20)]
    plain, adaptive = Judge(4, 0.01), Judge(4, 0.01, adaptive=True)
    plain_stop = next(number for number, value in enumerate(falling, 1) if plain.is_over(value))
    adaptive_stop = next(number for number, value in enumerate(falling, 1) if adaptive.is_over(value))
    assert (plain_stop, adaptive_stop) == (5, 9)


def test_adaptive_judges_a_moving_average():
    judge = Judge(5, adaptive=True)
    judge.is_over(1.0)
    judge.is_over(0.0)
    assert judge.best == pytest.approx(0.7)


def test_a_cycle_is_judged_by_its_least_value_when_it_is_over():
    minimum = CycleMinimum()
    heard = [minimum.hear(value, cycle) for value, cycle in [(3, 0), (1, 0), (2, 1), (5, 1), (4, 2), (9, 2)]]
    assert heard == [None, None, 1, None, 4, None]


def test_restarts_do_not_use_up_patience():
    values = [1.0, 0.5, 0.9, 0.8, 0.4, 0.9, 0.8, 0.3]
    run, every = FakeRun(), EarlyStopping(patience=2, cycles=False)
    assert heard(every, values, run) == 4
    run, callback = FakeRun(), EarlyStopping(patience=2)
    cycles = [0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5]
    for value, cycle in zip([*values, 0.9, 0.4, 0.9, 0.5], cycles, strict=True):
        assert run.stopped == []
        run.scheduler = SimpleNamespace(cycle=cycle)
        callback.after_evaluation(run, "val", {"val/loss": value})
    assert run.stopped == ["no improvement of val/loss for 2 cycles of the schedule"]


def test_values_that_are_not_finite_end_it_inside_a_cycle_too():
    run = FakeRun()
    run.scheduler = SimpleNamespace(cycle=0)
    assert heard(EarlyStopping(), [1.0, math.nan, math.nan, 0.9, math.nan, math.nan], run) is None
    assert heard(EarlyStopping(), [1.0, math.nan, math.nan, math.nan], run) == 4


def test_a_run_with_restarts_hears_its_cycles(tmp_path):
    settings = {"scheduler.use": "cosine-restarts", "scheduler.first_cycle": 6, "scheduler.cycle_factor": 1}
    callback = EarlyStopping(patience=1, min_delta=1e9)
    asked = {"out": str(tmp_path / "run"), "scheduler.warmup": 0, "evaluate.every_steps": 2, **settings}
    result = start(tiny_request(asked, stages=[Stage(epochs=5)], callbacks=[callback]))
    # The first cycle sets the best value, the second does not improve it.
    assert (result.summary["steps"], callback.minimum.cycle) == (12, 2)
    assert "for 1 cycles of the schedule" in result.summary["stop_reason"]


@pytest.mark.parametrize("options", [{"adaptive": True}, {}])
def test_two_and_three_epochs_are_five(options, tmp_path):
    settings = {"optimizer.lr": 0.02, "evaluate.every_steps": 3}
    if not options:
        settings |= {"scheduler.use": "cosine-restarts", "scheduler.first_cycle": 7, "scheduler.cycle_factor": 1}
    straight = assert_resumes(
        tmp_path, lambda: [EarlyStopping(patience=2, min_delta=0.2, delta="relative", **options)], [4, 9], settings
    )
    assert straight.exists()

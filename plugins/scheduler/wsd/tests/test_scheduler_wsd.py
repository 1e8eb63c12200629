from __future__ import annotations

import pytest
from trainkit import UsageError
from trainkit.testing import SchedulerConformance
from trainkit.testing.scheduler import optimizer, rates
from trainkit_scheduler_wsd.wsd import SHAPES, WSD, stable_decay


class TestWSD(SchedulerConformance):
    component = "wsd"


class TestWSDThatDecaysFromTheStart(SchedulerConformance):
    component = "wsd"
    options = {"warmup": 0, "decay": 0.99, "shape": "cosine", "floor": 0.05}


@pytest.mark.parametrize(
    ("shape", "at_85", "at_90"), [("linear", 0.75, 0.5), ("1-sqrt", 0.5, 0.292893), ("cosine", 0.853553, 0.5)]
)
def test_textbook_values(shape, at_85, at_90):
    scheduler = WSD(optimizer(), 100, decay=20, shape=shape, warmup=10)
    assert {scheduler.factor_at(step) for step in range(10, 81)} == {1.0}
    assert scheduler.factor_at(85) == pytest.approx(at_85, abs=1e-6)
    assert scheduler.factor_at(90) == pytest.approx(at_90, abs=1e-6)
    assert [scheduler.factor_at(step) for step in (100, 101, 10**6)] == [0.0] * 3


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_equals_transformers(shape):
    from transformers.optimization import get_wsd_schedule as schedule

    ours = WSD(optimizer(0.3), 100, decay=23, shape=shape, warmup=7, start=0.1, floor=0.1)
    theirs = schedule(optimizer(0.3), 7, 23, num_training_steps=100, decay_type=shape, min_lr_ratio=0.1)
    assert rates(ours, 110) == pytest.approx(rates(theirs, 110), abs=1e-12)


def test_without_a_decay_the_rate_stays():
    assert {stable_decay(step, 50, decay=0) for step in range(60)} == {1.0}


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="a warm-up of 50 and a decay of 60 steps are longer than the 100 steps"):
        WSD(optimizer(), 100, warmup=50, decay=60)
    with pytest.raises(UsageError, match="the warm-up of 100 steps leaves none"):
        WSD(optimizer(), 100, warmup=100, decay=60)
    assert WSD(optimizer(), 100, warmup=40, decay=60).factor_at(40) == 1.0

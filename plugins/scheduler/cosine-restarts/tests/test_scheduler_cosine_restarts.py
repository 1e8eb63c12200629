from __future__ import annotations

from itertools import pairwise

import pytest
from torch.optim import lr_scheduler
from trainkit import UsageError
from trainkit.testing import SchedulerConformance
from trainkit.testing.scheduler import optimizer, rates
from trainkit_scheduler_cosine_restarts.cosine_restarts import (
    CosineRestarts,
    cosine_restarts,
    cycle_of,
    first_cycle_steps,
)


class TestCosineRestarts(SchedulerConformance):
    component = "cosine-restarts"


class TestCosineRestartsOfOneLength(SchedulerConformance):
    component = "cosine-restarts"
    options = {"first_cycle": 7, "cycle_factor": 1, "warmup": 0}


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.0), (500, 2.5e-4), (1000, 5e-4), (1500, 2.505e-4), (1999, 1.00123e-6), (2000, 5e-4), (3000, 2.505e-4),
        (4000, 5e-4), (6000, 2.505e-4), (8000, 5e-4),
    ],
)  # fmt: skip
def test_textbook_values(step, rate):
    sgd = optimizer(5e-4)
    CosineRestarts(sgd, 9000, first_cycle=1000, eta_min=1e-6, warmup=1000, start=0.0).step(step)
    assert sgd.param_groups[0]["lr"] == pytest.approx(rate, rel=1e-5)


def test_a_boundary_belongs_to_the_next_cycle():
    assert [cycle_of(step, 10, 2) for step in (0, 9, 10, 29, 30, 69, 70)] == [
        (0, 10), (9, 10), (0, 20), (19, 20), (0, 40), (39, 40), (0, 80),
    ]  # fmt: skip
    assert [cycle_of(step, 10, 1) for step in (0, 9, 10, 29, 30)] == [(0, 10), (9, 10), (0, 10), (9, 10), (0, 10)]


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_equals_pytorch_without_warmup(factor):
    ours = CosineRestarts(optimizer(0.3), 200, first_cycle=9, cycle_factor=factor, eta_min=0.01, warmup=0)
    theirs = lr_scheduler.CosineAnnealingWarmRestarts(optimizer(0.3), T_0=9, T_mult=factor, eta_min=0.01)
    assert rates(ours, 200) == pytest.approx(rates(theirs, 200), abs=1e-12)


def test_equals_transformers_with_warmup():
    from transformers.optimization import get_cosine_with_hard_restarts_schedule_with_warmup as schedule

    ours = CosineRestarts(optimizer(0.3), 91, first_cycle=16, cycle_factor=1, warmup=11, start=0.0)
    theirs = schedule(optimizer(0.3), num_warmup_steps=11, num_training_steps=91, num_cycles=5)
    assert rates(ours, 91) == pytest.approx(rates(theirs, 91), abs=1e-12)


def test_groups_keep_their_ratios_and_the_largest_ends_at_eta_min():
    sgd = optimizer(0.1, 0.4)
    CosineRestarts(sgd, 20, first_cycle=20, eta_min=0.04, warmup=0).step(19)
    small, large = (group["lr"] for group in sgd.param_groups)
    assert large == pytest.approx(0.04, rel=0.1)
    assert small == pytest.approx(large / 4)


def test_a_rate_below_eta_min_stays_and_is_told():
    with pytest.warns(UserWarning, match=r"eta_min is 0.5, above the learning rate of 0.3: the rate stays 0.3"):
        scheduler = CosineRestarts(optimizer(0.3), 30, first_cycle=10, eta_min=0.5, warmup=0)
    assert rates(scheduler, 30) == [0.3] * 30


@pytest.mark.parametrize(
    ("wanted", "factor", "steps", "first"),
    [(None, 2, 70, 10), (None, 2, 100, 15), (None, 1, 90, 30), (0.5, 1, 101, 51), (0.1, 2, 110, 11), (40, 2, 10, 40)],
)
def test_length_of_the_first_cycle(wanted, factor, steps, first):
    assert first_cycle_steps(wanted, factor, steps) == first


def test_by_default_the_training_ends_low_in_the_third_cycle():
    for total in range(1, 300):
        scheduler = CosineRestarts(optimizer(), total)
        found = [scheduler.factor_at(step) for step in range(scheduler.warmup, total)]
        restarts = sum(b > a for a, b in pairwise(found))
        assert restarts <= 2, total
        assert total < 20 or (restarts == 2 and found[-1] < 0.5), total
        assert total < 100 or found[-1] < 0.05, total


def test_a_cycle_of_no_steps_is_refused():
    with pytest.raises(UsageError, match="a cycle needs a length"):
        CosineRestarts(optimizer(), 100, first_cycle=0.0)
    assert cosine_restarts(0, 1) == 1.0


@pytest.mark.parametrize(("factor", "numbers"), [(1, [0, 0, 1, 1, 2, 2, 3]), (2, [0, 0, 1, 1, 1, 1, 2])])
def test_cycles_are_counted_from_the_end_of_the_warm_up(factor, numbers):
    scheduler = CosineRestarts(optimizer(0.3), 20, first_cycle=2, cycle_factor=factor, warmup=3)
    found = []
    for _ in range(3 + len(numbers)):
        found.append(scheduler.cycle)
        scheduler.optimizer.step()
        scheduler.step()
    assert found == [0, 0, 0, *numbers]

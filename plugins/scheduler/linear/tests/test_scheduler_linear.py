from __future__ import annotations

import pytest
from torch.optim import lr_scheduler
from trainkit.testing import SchedulerConformance
from trainkit.testing.scheduler import optimizer, rates
from trainkit_scheduler_linear.linear import Linear, linear


class TestLinear(SchedulerConformance):
    component = "linear"


class TestLinearToAFloor(SchedulerConformance):
    component = "linear"
    options = {"warmup": 0.2, "floor": 0.2, "start": 0.1}


@pytest.mark.parametrize(("step", "factor"), [(0, 0), (5, 0.5), (10, 1), (60, 0.5), (110, 0), (200, 0)])
def test_textbook_values(step, factor):
    assert Linear(optimizer(), 110, warmup=10, start=0.0).factor_at(step) == pytest.approx(factor)


def test_floor_is_reached_and_kept():
    assert linear(50, 100, floor=0.1) == pytest.approx(0.55)
    assert [linear(step, 100, floor=0.1) for step in (100, 101, 10**6)] == [0.1] * 3


def test_equals_pytorch_without_warmup():
    ours = Linear(optimizer(0.3), 50, warmup=0, floor=0.1)
    theirs = lr_scheduler.LinearLR(optimizer(0.3), start_factor=1.0, end_factor=0.1, total_iters=50)
    assert rates(ours, 60) == pytest.approx(rates(theirs, 60), abs=1e-12)


def test_equals_transformers_with_warmup():
    from transformers.optimization import get_linear_schedule_with_warmup as schedule

    ours = Linear(optimizer(0.3), 90, warmup=7, start=0.0)
    theirs = schedule(optimizer(0.3), num_warmup_steps=7, num_training_steps=90)
    assert rates(ours, 100) == pytest.approx(rates(theirs, 100), abs=1e-12)


def test_no_step_is_wasted_by_default():
    assert min(rates(Linear(optimizer(), 100), 100)) == pytest.approx(1 / 90)

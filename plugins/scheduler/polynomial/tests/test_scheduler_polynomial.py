from __future__ import annotations

import pytest
from torch.optim import lr_scheduler
from trainkit.testing import SchedulerConformance
from trainkit.testing.scheduler import optimizer, rates
from trainkit_scheduler_polynomial.polynomial import Polynomial, polynomial


class TestPolynomial(SchedulerConformance):
    component = "polynomial"


class TestPolynomialOfASmallPower(SchedulerConformance):
    component = "polynomial"
    options = {"power": 0.9, "warmup": 0, "floor": 0.1}


def test_known_values():
    assert [polynomial(step, 10, power=2.0) for step in (0, 5, 10, 11)] == [1.0, 0.25, 0.0, 0.0]
    assert polynomial(5, 10, power=2.0, floor=0.2) == pytest.approx(0.4)


@pytest.mark.parametrize("power", [0.9, 1.0, 2.0, 3.5])
def test_equals_pytorch_without_warmup(power):
    ours = Polynomial(optimizer(0.3), 50, power=power, warmup=0)
    theirs = lr_scheduler.PolynomialLR(optimizer(0.3), total_iters=50, power=power)
    assert rates(ours, 60) == pytest.approx(rates(theirs, 60), abs=1e-12)


@pytest.mark.parametrize("power", [0.9, 2.0])
def test_equals_transformers_with_warmup_and_floor(power):
    from transformers.optimization import get_polynomial_decay_schedule_with_warmup as schedule

    ours = Polynomial(optimizer(0.5), 90, power=power, warmup=7, start=0.0, floor=0.1)
    theirs = schedule(optimizer(0.5), num_warmup_steps=7, num_training_steps=90, lr_end=0.05, power=power)
    assert rates(ours, 100) == pytest.approx(rates(theirs, 100), abs=1e-12)

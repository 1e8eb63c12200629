from __future__ import annotations

import math

import pytest
from torch.optim import lr_scheduler
from trainkit.testing import SchedulerConformance
from trainkit.testing.scheduler import optimizer, rates
from trainkit_scheduler_cosine.cosine import Cosine, cosine


class TestCosine(SchedulerConformance):
    component = "cosine"


class TestCosineWithoutWarmup(SchedulerConformance):
    component = "cosine"
    options = {"warmup": 0, "floor": 0.0}


@pytest.mark.parametrize(("step", "factor"), [(0, 0), (5, 0.5), (10, 1), (60, 0.5), (110, 0), (200, 0)])
def test_textbook_values(step, factor):
    assert Cosine(optimizer(), 110, warmup=10, start=0.0, floor=0.0).factor_at(step) == pytest.approx(factor)


def test_floor_is_reached_and_kept():
    assert cosine(50, 100, floor=0.1) == pytest.approx(0.55)
    assert [cosine(step, 100, floor=0.1) for step in (100, 101, 10**6)] == [0.1] * 3


def test_equals_pytorch_without_warmup():
    ours, theirs = Cosine(optimizer(), 50, warmup=0, floor=0.0), lr_scheduler.CosineAnnealingLR(optimizer(), T_max=50)
    assert rates(ours, 50) == pytest.approx(rates(theirs, 50), abs=1e-12)


def test_equals_transformers_with_warmup_and_floor():
    from transformers.optimization import get_cosine_with_min_lr_schedule_with_warmup as schedule

    ours = Cosine(optimizer(0.3), 90, warmup=7, floor=0.2, start=0.0)
    theirs = schedule(optimizer(0.3), num_warmup_steps=7, num_training_steps=90, min_lr_rate=0.2)
    assert rates(ours, 90) == pytest.approx(rates(theirs, 90), abs=1e-12)


def test_falls_all_the_way():
    found = [Cosine(optimizer(), 200).factor_at(step) for step in range(20, 201)]
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (1.0, 0.01)
    assert math.isclose(found[90], 0.505)

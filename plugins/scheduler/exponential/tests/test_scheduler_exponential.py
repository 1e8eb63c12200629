from __future__ import annotations

from itertools import pairwise

import pytest
from torch.optim import lr_scheduler
from trainkit import UsageError
from trainkit.testing import SchedulerConformance
from trainkit.testing.scheduler import optimizer, rates
from trainkit_scheduler_exponential.exponential import Exponential, exponential


class TestExponential(SchedulerConformance):
    component = "exponential"


class TestExponentialWithGamma(SchedulerConformance):
    component = "exponential"
    options = {"gamma": 0.8, "floor": 0.0, "warmup": 0}


def test_known_values():
    assert [exponential(step, 0.5) for step in range(4)] == [1.0, 0.5, 0.25, 0.125]
    assert [exponential(step, 0.5, floor=0.3) for step in range(4)] == [1.0, 0.5, 0.3, 0.3]


def test_equals_pytorch_with_gamma():
    ours = Exponential(optimizer(0.3), 50, gamma=0.9, warmup=0, floor=0.0)
    assert rates(ours, 80) == pytest.approx(rates(lr_scheduler.ExponentialLR(optimizer(0.3), 0.9), 80), rel=1e-9)


@pytest.mark.parametrize("warmup", [0, 10])
def test_without_gamma_the_floor_is_reached_at_the_end(warmup):
    scheduler = Exponential(optimizer(), 100, warmup=warmup, floor=0.01)
    found = [scheduler.factor_at(step) for step in range(warmup, 120)]
    assert found[0] == 1.0
    assert found[(100 - warmup) // 2] == pytest.approx(0.1)
    assert found[100 - warmup :] == pytest.approx([0.01] * 20, rel=1e-12)
    assert {round(b / a, 9) for a, b in pairwise(found[: 101 - warmup])} == {round(0.01 ** (1 / (100 - warmup)), 9)}


def test_a_fall_to_nothing_needs_gamma():
    with pytest.raises(UsageError, match="never comes to 0"):
        Exponential(optimizer(), 100, floor=0.0)
    assert Exponential(optimizer(), 100, gamma=0.5, warmup=0, floor=0.0).factor_at(2) == 0.25

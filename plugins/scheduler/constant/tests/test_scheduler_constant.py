from __future__ import annotations

import pytest
from torch.optim import lr_scheduler
from trainkit.config import NULL_SCHEDULER
from trainkit.testing import SchedulerConformance
from trainkit.testing.scheduler import optimizer, rates
from trainkit_scheduler_constant.constant import Constant


class TestConstant(SchedulerConformance):
    component = "constant"


class TestConstantAfterWarmup(SchedulerConformance):
    component = "constant"
    options = {"warmup": 0.25}


def test_is_the_scheduler_that_the_core_takes_for_none():
    assert TestConstant.component == NULL_SCHEDULER


def test_by_default_no_rate_changes():
    assert rates(Constant(optimizer(0.3), 20), 30) == [0.3] * 30


def test_equals_pytorch():
    theirs = lr_scheduler.ConstantLR(optimizer(0.3), factor=1.0)
    assert rates(Constant(optimizer(0.3), 20), 30) == rates(theirs, 30)


def test_equals_transformers_with_warmup():
    from transformers.optimization import get_constant_schedule_with_warmup as schedule

    ours, theirs = Constant(optimizer(0.3), 40, warmup=9, start=0.0), schedule(optimizer(0.3), num_warmup_steps=9)
    assert rates(ours, 40) == pytest.approx(rates(theirs, 40), abs=1e-12)

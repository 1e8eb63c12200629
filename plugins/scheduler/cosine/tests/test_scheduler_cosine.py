from __future__ import annotations

import warnings

import pytest
import torch
from trainkit import UsageError
from trainkit.testing import SchedulerConformance
from trainkit_scheduler_cosine.cosine import Cosine, warmup_cosine, warmup_steps


class TestCosine(SchedulerConformance):
    component = "cosine"


class TestCosineWithoutWarmup(SchedulerConformance):
    component = "cosine"
    options = {"warmup": 0, "floor": 0.0}


def optimizer(lr=1.0):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


@pytest.mark.parametrize(("step", "factor"), [(0, 0), (5, 0.5), (10, 1), (60, 0.5), (110, 0), (200, 0)])
def test_textbook_values(step, factor):
    assert warmup_cosine(step, total=110, warmup=10, start=0.0) == pytest.approx(factor)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0)])
def test_default_warmup_reaches_the_peak_without_wasting_the_first_step(step, factor):
    assert warmup_cosine(step, total=110, warmup=10) == pytest.approx(factor)


def test_start_is_the_factor_of_the_first_step():
    assert warmup_cosine(0, total=110, warmup=10, start=0.1) == pytest.approx(0.1)
    assert warmup_cosine(5, total=110, warmup=10, start=0.1) == pytest.approx(0.55)


def test_floor_is_reached_and_kept():
    assert warmup_cosine(60, total=110, warmup=10, floor=0.1) == pytest.approx(0.55)
    assert [warmup_cosine(step, total=110, warmup=10, floor=0.1) for step in (110, 111, 10**6)] == [0.1] * 3


def test_equals_pytorch_without_warmup():
    ours, theirs = optimizer(), optimizer()
    one = Cosine(ours, 50, warmup=0, floor=0.0)
    other = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=50)
    for _ in range(50):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], abs=1e-12)
        for either, scheduler in ((ours, one), (theirs, other)):
            either.step()
            scheduler.step()


@pytest.mark.parametrize(
    ("warmup", "total", "steps"), [(0.1, 110, 11), (0.1, 5, 0), (0.99, 2, 1), (7, 8, 7), (0, 1, 0)]
)
def test_warmup_is_steps_or_a_fraction(warmup, total, steps):
    assert warmup_steps(warmup, total) == steps


@pytest.mark.parametrize("total", [100, 40])
def test_warmup_that_leaves_nothing_is_refused(total):
    with pytest.raises(UsageError, match=f"the warm-up of 100 steps leaves none of the {total} steps"):
        Cosine(optimizer(), total, warmup=100)


def test_state_is_the_step():
    scheduler = Cosine(optimizer(), 100)
    for _ in range(7):
        scheduler.optimizer.step()
        scheduler.step()
    assert scheduler.state_dict() == {"step": 7}


def test_learning_rate_may_be_a_tensor():
    adam = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=torch.tensor(1.0), foreach=False)
    scheduler = Cosine(adam, 110, warmup=10, start=0.0)
    before = adam.param_groups[0]["lr"]
    for _ in range(5):
        scheduler.step()
    assert adam.param_groups[0]["lr"] is before
    assert float(before) == pytest.approx(0.5)


def test_stages_begin_anew_at_another_rate():
    """The core sets a new rate, drops initial_lr and builds a scheduler for the stage alone."""
    sgd = optimizer(1.0)
    Cosine(sgd, 10, warmup=0)
    for group in sgd.param_groups:
        group["lr"] = 0.5
        group.pop("initial_lr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = Cosine(sgd, 20, warmup=0)
    assert second.get_last_lr() == [0.5]

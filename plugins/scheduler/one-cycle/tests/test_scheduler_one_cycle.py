from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler
from trainkit import UsageError
from trainkit.testing import SchedulerConformance
from trainkit_scheduler_one_cycle.one_cycle import OneCycle, one_cycle, swing


class TestOneCycle(SchedulerConformance):
    component = "one-cycle"


class TestOneCycleWithMomentum(SchedulerConformance):
    component = "one-cycle"
    options = {"warmup": 0.1, "start": 0.1, "floor": 0.01, "momentum": (0.85, 0.95)}


def optimizer(lr=1.0, kind=torch.optim.SGD, **options):
    return kind([torch.nn.Parameter(torch.zeros(1))], lr=lr, **options)


def values(scheduler, steps, read):
    found = []
    for _ in range(steps):
        found.append(read(scheduler.optimizer.param_groups[0]))
        scheduler.optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 4e-4), (10, 0.00295164), (29, 0.01), (50, 0.00793893), (99, 4e-8), (100, 4e-8)]
)
def test_textbook_values(step, rate):
    assert 0.01 * one_cycle(step, total=100, warmup=30) == pytest.approx(rate, rel=1e-5)


@pytest.mark.parametrize(("total", "warmup"), [(100, 0.3), (50, 0.5), (20, 0.1)])
@pytest.mark.parametrize("momentum", ["momentum", "betas"])
def test_equals_pytorch(total, warmup, momentum):
    make = {"momentum": torch.optim.SGD, "betas": torch.optim.AdamW}[momentum]
    ours = OneCycle(optimizer(0.3, make), total, warmup=warmup, momentum=(0.85, 0.95))
    theirs = lr_scheduler.OneCycleLR(optimizer(0.3, make), max_lr=0.3, total_steps=total, pct_start=warmup)

    def read(group):
        return [group["lr"], group["betas"][0] if momentum == "betas" else group["momentum"]]

    found = values(ours, total - 1, read), values(theirs, total - 1, read)
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, abs=1e-12)


def test_only_the_first_of_the_betas_changes():
    adam = optimizer(kind=torch.optim.AdamW, betas=(0.8, 0.99))
    OneCycle(adam, 100, momentum=(0.85, 0.95)).step(29)
    assert adam.param_groups[0]["betas"] == (pytest.approx(0.85), 0.99)


def test_momentum_is_left_alone_unless_asked_for():
    sgd = optimizer(momentum=0.7)
    OneCycle(sgd, 100).step(29)
    assert sgd.param_groups[0]["momentum"] == 0.7


def test_momentum_goes_on_where_it_was():
    straight = OneCycle(optimizer(), 40, momentum=(0.85, 0.95))
    straight.step(17)
    resumed = OneCycle(optimizer(), 40, momentum=(0.85, 0.95))
    resumed.load_state_dict(straight.state_dict())
    assert resumed.optimizer.param_groups[0]["momentum"] == straight.optimizer.param_groups[0]["momentum"] < 0.95


def test_momentum_that_does_not_exist_is_refused():
    bare = torch.optim.Optimizer([torch.nn.Parameter(torch.zeros(1))], {"lr": 0.1})
    with pytest.raises(UsageError, match="Optimizer has no momentum to change"):
        OneCycle(bare, 100, momentum=(0.85, 0.95))
    with pytest.raises(UsageError, match="the lowest momentum comes first"):
        OneCycle(optimizer(), 100, momentum=(0.95, 0.85))


def test_a_cycle_without_a_rise_begins_at_the_peak():
    assert [swing(step, 3, 0) for step in range(4)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert swing(0, 1, 0) == 1.0

"""Checks of schedulers: learning rates follow from the step alone, and groups keep their ratios."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from trainkit.errors import UsageError
from trainkit.events import resolve
from trainkit.schedule import set_base_rates

from .component import ComponentConformance, plain, raises
from .tiny import tiny_run

if TYPE_CHECKING:
    from trainkit.live import Run

RATES = (1.0, 0.1)


def optimizer(*rates: float) -> torch.optim.Optimizer:
    """Return an optimizer with a group for each rate, one of rate 1 if none is given."""
    rates = rates or (1.0,)
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=rates[0])


def rates(scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[float]:
    """Return the rate of the first group before each of so many steps; the scheduler makes them."""
    found = []
    for _ in range(steps):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


class SchedulerConformance(ComponentConformance):
    """Check a scheduler.

    Attributes:
        total_steps: the length it is checked with.
    """

    kind = "scheduler"
    total_steps: ClassVar[int] = 40

    @cached_property
    def run(self) -> Run:
        """Return the run that evaluations are heard in."""
        return tiny_run()

    def scheduler(
        self, total_steps: int | None = None, extra: Mapping[str, Any] | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Return a fresh scheduler over two groups with learning rates of 1 and 0.1, with `extra` options on top."""
        groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in RATES]
        optimizer = torch.optim.SGD(groups)
        scheduler: torch.optim.lr_scheduler.LRScheduler = self.build(
            extra, optimizer=optimizer, total_steps=total_steps or self.total_steps
        )
        return scheduler

    def advance(self, scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
        """Make one step; one that waits for a metric hears an evaluation as bad as all the others after it."""
        scheduler.optimizer.step()
        scheduler.step()
        if getattr(scheduler, "requires_metric", False):
            results = {"val/loss": 1.0, getattr(scheduler, "monitor", None) or "val/loss": 1.0}
            for hear in resolve([(f"scheduler {self.component}", scheduler)]).after_evaluation:
                hear(self.run, "val", results)

    def rates(self, scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[list[float]]:
        """Return the learning rates of all groups over the next steps."""
        found = []
        for _ in range(steps):
            found.append([float(group["lr"]) for group in scheduler.optimizer.param_groups])
            self.advance(scheduler)
        return found

    def test_is_a_torch_scheduler(self) -> None:
        """It is a torch LRScheduler."""
        assert isinstance(self.scheduler(), torch.optim.lr_scheduler.LRScheduler)

    def test_is_a_function_of_the_step(self) -> None:
        """Two fresh schedulers give the same rates, to the bit, where they hear the same."""
        assert self.rates(self.scheduler(), self.total_steps) == self.rates(self.scheduler(), self.total_steps)

    def test_resumes_to_the_bit(self) -> None:
        """Its state in a fresh scheduler, at any step, gives the rates of the uninterrupted one."""
        straight = self.rates(self.scheduler(), self.total_steps)
        for cut in (0, 1, self.total_steps // 2, self.total_steps - 1):
            first = self.scheduler()
            self.rates(first, cut)
            second = self.scheduler()
            second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
            second.load_state_dict(copy.deepcopy(first.state_dict()))
            assert self.rates(second, self.total_steps - cut) == straight[cut:], f"resumed at step {cut}"

    def test_state_is_plain(self) -> None:
        """Its state is numbers, strings and tensors only."""
        scheduler = self.scheduler()
        self.rates(scheduler, 3)
        assert plain(scheduler.state_dict())

    def test_keeps_the_ratios_of_groups(self) -> None:
        """A group with a tenth of the rate has a tenth of it at every step."""
        for first, second in self.rates(self.scheduler(), self.total_steps):
            assert math.isclose(second, first * RATES[1] / RATES[0], rel_tol=1e-9, abs_tol=1e-12)

    def test_rates_are_never_negative(self) -> None:
        """No rate is negative or not finite, also beyond the planned steps."""
        rates = self.rates(self.scheduler(), self.total_steps + 5)
        assert all(math.isfinite(rate) and rate >= 0 for row in rates for rate in row)

    def test_does_not_waste_the_first_step(self) -> None:
        """The rate of the first step is above 0."""
        assert all(rate > 0 for rate in self.rates(self.scheduler(), 1)[0])

    def test_takes_the_shortest_trainings(self) -> None:
        """One, two or three steps in all are enough."""
        for total in (1, 2, 3):
            rates = self.rates(self.scheduler(total), total)
            assert any(rate > 0 for row in rates for rate in row), f"no learning in {total} steps"

    def test_follows_new_base_rates(self) -> None:
        """Base rates that change on the way, as by the factor of a stage, change all rates from there in proportion."""
        one, other = self.scheduler(), self.scheduler()
        self.rates(one, 3)
        self.rates(other, 3)
        set_base_rates(other, [0.5 * float(rate) for rate in other.base_lrs])
        for whole, half in zip(self.rates(one, 5), self.rates(other, 5), strict=True):
            assert all(math.isclose(h, 0.5 * w, rel_tol=1e-9) for w, h in zip(whole, half, strict=True))

    def test_refuses_a_warmup_that_fills_the_training(self) -> None:
        """Where it has an option `warmup`, one as long as the training is refused, whatever else is set."""
        if "warmup" not in self.option_names():
            assert not hasattr(self.scheduler(), "warmup"), "its warm-up is no option"
            return
        for warmup in (self.total_steps, 10 * self.total_steps):
            with raises(UsageError):
                self.scheduler(extra={"warmup": warmup})

    def test_reacts_to_what_it_waits_for(self) -> None:
        """Where it waits for a metric, evaluations that do not improve lower the rate; steps alone leave it."""
        scheduler = self.scheduler()
        if not getattr(scheduler, "requires_metric", False):
            assert not resolve([(f"scheduler {self.component}", scheduler)]).after_evaluation, "set requires_metric"
            return
        heard, unheard = self.rates(scheduler, self.total_steps), self.scheduler()
        for _ in range(self.total_steps):
            unheard.optimizer.step()
            unheard.step()
        assert heard[-1][0] < float(unheard.optimizer.param_groups[0]["lr"])

    def test_reports_the_rates_it_sets(self) -> None:
        """get_last_lr gives what stands in the optimizer."""
        scheduler = self.scheduler()
        for _ in range(5):
            assert [float(r) for r in scheduler.get_last_lr()] == [g["lr"] for g in scheduler.optimizer.param_groups]
            self.advance(scheduler)

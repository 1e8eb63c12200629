"""What schedulers share: a factor on the learning rates that follows from the step, and the warm-up before it.

A scheduler says what comes after the warm-up, with its mathematics as a function of its own::

    class InverseRoot(FactorScheduler):
        def factor(self, step):
            return (step + 1) ** -0.5
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .errors import UsageError

Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Steps = NonNegativeInt | Fraction
"""A length: optimizer steps as a whole number, or a fraction of all steps."""

# 0.29 * 100 is a little less than 29.
ROUNDING = 1e-9


def steps_of(length: int | float, total: int) -> int:
    """Return a length in steps: an int as it is, a float as a fraction of the total, rounded down."""
    return length if isinstance(length, int) else int(length * total + ROUNDING)


def warmup_steps(warmup: int | float, total: int) -> int:
    """Return the steps of a warm-up; raise UsageError unless at least one step of the training is left after it."""
    steps = steps_of(warmup, total)
    if steps and steps >= total:
        raise UsageError(
            f"the warm-up of {steps} steps leaves none of the {total} steps of the training",
            where="scheduler.warmup",
            do="give it as a fraction, as in --set scheduler.warmup=0.1, or train longer",
        )
    return steps


def linear_rise(step: int, warmup: int, start: float | None = None) -> float:
    """Return the factor of a step of the warm-up, which is 1 at its end.

    Args:
        step: optimizer step, from 0.
        warmup: optimizer steps of the rise.
        start: factor of step 0, from which it is start + (1 - start) step / warmup; 0 is the textbook's form. Without
            it the factor is (step + 1) / warmup, which does not waste the first step on a rate of 0 [reading].

    Source: Goyal et al. 2017, arXiv 1706.02677 [paper].
    """
    return (step + 1) / warmup if start is None else start + (1 - start) * step / warmup


def set_base_rates(scheduler: LRScheduler, rates: Sequence[float]) -> None:
    """Let a scheduler go on with other rates of the groups as its base, from this very step.

    One that makes each rate from its base, and one that makes it from the rate before, both follow.
    """
    for group, old, new in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, rates, strict=True):
        ratio = new / float(old) if float(old) else 0.0
        _set_rate(group, group["lr"] * ratio)
    scheduler.base_lrs = list(rates)
    if isinstance(scheduler, FactorScheduler):
        scheduler.set_rates()


def _set_rate(group: dict[str, Any], rate: float | Tensor) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


class FactorScheduler(LRScheduler):
    """Multiply the learning rate of each group by one factor, so that groups keep their ratios.

    A subclass gives `factor`; options of its own are set before this constructor is called, as that asks for the first
    factor. The state is the step alone: a resumed run continues with the very same rates.

    Args:
        optimizer: whose groups are scheduled.
        total_steps: optimizer steps of the whole schedule.
        warmup: length of the rise to the full rate, in steps or as a fraction of total_steps.
        start: factor of the first step; 1 / warm-up steps if not set.

    Raises:
        UsageError: the warm-up is not shorter than the training.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: Steps = 0, start: Share | None = None) -> None:
        self.total_steps = total_steps
        self.warmup = warmup_steps(warmup, total_steps)
        self.start = start
        super().__init__(optimizer)

    @property
    def steps(self) -> int:
        """Return the number of steps after the warm-up, at least 1."""
        return self.total_steps - self.warmup

    @abstractmethod
    def factor(self, step: int) -> float:
        """Return the factor of a step that is counted from the end of the warm-up; it may lie beyond the training."""
        raise NotImplementedError

    def rise(self, step: int) -> float:
        """Return the factor of a step of the warm-up, counted from 0."""
        return linear_rise(step, self.warmup, self.start)

    def factor_at(self, step: int) -> float:
        """Return the factor of any step of the schedule, whatever the step is now."""
        return self.rise(step) if step < self.warmup else self.factor(step - self.warmup)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group at the current step."""
        factor = self.factor_at(self.last_epoch)
        return [base * factor for base in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Go to the next optimizer step, or to the given one."""
        # PyTorch's own step() spends its time on warnings and context managers that a function of the step needs not.
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self.set_rates()

    def set_rates(self) -> None:
        """Give the groups the learning rates of the current step."""
        rates = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            _set_rate(group, rate)
        self._last_lr = rates

    def state_dict(self) -> dict[str, Any]:
        """Return the step: everything else is a function of it."""
        return {"step": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the step of a saved state."""
        self.step(state_dict["step"])

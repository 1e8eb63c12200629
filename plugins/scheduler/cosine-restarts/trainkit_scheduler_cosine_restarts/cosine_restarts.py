"""Cosine cycles that begin anew at the full rate: a pure function of the step."""

from __future__ import annotations

import math
import warnings

from pydantic import NonNegativeFloat, PositiveInt
from torch.optim import Optimizer
from trainkit import UsageError
from trainkit.schedule import ROUNDING, FactorScheduler, Fraction, Share, Steps

DEFAULT_CYCLES = 3


def cycle_of(step: int, first_cycle: int, cycle_factor: int) -> tuple[int, int]:
    """Return where in its cycle a step lies, from 0, and how long that cycle is.

    The step at which a cycle's length is reached is the first one of the next cycle.

    Args:
        step: optimizer step, from 0.
        first_cycle: steps of the first cycle.
        cycle_factor: how many times longer each cycle is than the one before.
    """
    if cycle_factor == 1:
        return step % first_cycle, first_cycle
    length = first_cycle
    while step >= length:
        step -= length
        length *= cycle_factor
    return step, length


def cycle_number(step: int, first_cycle: int, cycle_factor: int) -> int:
    """Return the number of the cycle, from 0, in which a step lies; see `cycle_of`."""
    if cycle_factor == 1:
        return step // first_cycle
    return round(math.log(cycle_of(step, first_cycle, cycle_factor)[1] / first_cycle, cycle_factor))


def cosine_restarts(step: int, first_cycle: int, cycle_factor: int = 1, floor: float = 0.0) -> float:
    """Return the factor on the learning rate: floor + (1 - floor) (1 + cos(pi x)) / 2, x from 0 to 1 in each cycle.

    Args:
        step: optimizer step, from 0.
        first_cycle: steps of the first cycle, T_0.
        cycle_factor: how many times longer each cycle is than the one before, T_mult.
        floor: factor at the end of a cycle.

    Source: Loshchilov and Hutter 2016, arXiv 1608.03983 [paper].
    """
    position, length = cycle_of(step, first_cycle, cycle_factor)
    return floor + (1 - floor) * (1 + math.cos(math.pi * position / length)) / 2


def first_cycle_steps(first_cycle: int | float | None, cycle_factor: int, steps: int) -> int:
    """Return the steps of the first cycle, fractions rounded up, so that no cycle begins just before the end [reading].

    Args:
        first_cycle: steps, a fraction of `steps`, or None for the length at which three cycles fill them.
        cycle_factor: how many times longer each cycle is than the one before.
        steps: steps of the training without the warm-up.
    """
    if isinstance(first_cycle, int):
        return first_cycle
    share = 1 / sum(cycle_factor**i for i in range(DEFAULT_CYCLES)) if first_cycle is None else first_cycle
    return max(1, math.ceil(share * steps - ROUNDING))


class CosineRestarts(FactorScheduler):
    """Raise the learning rate linearly, then lower it by half a cosine again and again; groups keep their ratios.

    A cycle ends near `eta_min`; the next one begins at the full rate (SGDR). `eta_min` is the least rate of the group
    with the largest one; the others have theirs in proportion, where PyTorch takes all to the same rate.

    Args:
        optimizer: whose groups are scheduled.
        total_steps: optimizer steps of the whole schedule.
        first_cycle: length of the first cycle (T_0): a whole number of steps, or a fraction of the steps after the
            warm-up; if not set, three cycles fill the training.
        cycle_factor: how many times longer each cycle is than the one before (T_mult).
        eta_min: learning rate at the end of a cycle; one above the group's own rate is lowered to it, with a warning.
        warmup: length of the rise: a whole number of steps, or a fraction of total_steps.
        start: factor of the first step; 1 / warm-up steps if not set.

    Raises:
        UsageError: a first cycle of no steps.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        first_cycle: PositiveInt | Fraction | None = None,
        cycle_factor: PositiveInt = 2,
        eta_min: NonNegativeFloat = 0.0,
        warmup: Steps = 0.1,
        start: Share | None = None,
    ) -> None:
        if first_cycle == 0:
            raise UsageError("a cycle needs a length", where="scheduler.first_cycle", do="give it steps, or a fraction")
        self.wanted_cycle, self.cycle_factor, self.eta_min = first_cycle, cycle_factor, eta_min
        super().__init__(optimizer, total_steps, warmup, start)
        if eta_min > (largest := self._largest_base()):
            warnings.warn(
                f"scheduler.eta_min is {eta_min:g}, above the learning rate of {largest:g}: the rate stays {largest:g}",
                stacklevel=2,
            )

    def _largest_base(self) -> float:
        return max(float(base) for base in self.base_lrs)

    @property
    def first_cycle(self) -> int:
        """Return the steps of the first cycle."""
        return first_cycle_steps(self.wanted_cycle, self.cycle_factor, self.steps)

    @property
    def cycle(self) -> int:
        """Return the number of the cycle, from 0, to which the next step belongs; the warm-up is part of the first."""
        return cycle_number(max(0, self.last_epoch - self.warmup), self.first_cycle, self.cycle_factor)

    @property
    def floor(self) -> float:
        """Return the factor at the end of a cycle: of a base below eta_min it is 1, as no cycle may raise the rate."""
        largest = self._largest_base()
        return min(1.0, self.eta_min / largest) if largest > 0 else 1.0

    def factor(self, step: int) -> float:
        """Return the factor of a step after the warm-up."""
        return cosine_restarts(step, self.first_cycle, self.cycle_factor, self.floor)

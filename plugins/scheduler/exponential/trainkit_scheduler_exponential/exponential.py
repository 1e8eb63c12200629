"""A fall by the same factor in each step: a pure function of the step."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch.optim import Optimizer
from trainkit import UsageError
from trainkit.schedule import FactorScheduler, Share, Steps

Gamma = Annotated[float, Field(gt=0, le=1)]


def exponential(step: int, gamma: float, floor: float = 0.0) -> float:
    """Return the factor on the learning rate: gamma^step, and never less than the floor.

    Args:
        step: optimizer step, from 0.
        gamma: factor of one step.
        floor: least factor.
    """
    return max(floor, gamma**step)


class Exponential(FactorScheduler):
    """Raise the learning rate linearly, then multiply it by the same factor in each step; groups keep their ratios.

    Args:
        optimizer: whose groups are scheduled.
        total_steps: optimizer steps of the whole schedule.
        gamma: factor of one optimizer step after the warm-up; if not set, the one that comes to the floor at the end.
        warmup: length of the rise: a whole number of steps, or a fraction of total_steps.
        floor: least factor.
        start: factor of the first step; 1 / warm-up steps if not set.

    Raises:
        UsageError: neither gamma nor a floor above 0: no such fall ends at 0.

    Source: `torch.optim.lr_scheduler.ExponentialLR`, which has no floor [impl]; gamma from the floor [reading].
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        gamma: Gamma | None = None,
        warmup: Steps = 0.1,
        floor: Share = 0.01,
        start: Share | None = None,
    ) -> None:
        if gamma is None and floor == 0:
            raise UsageError(
                "an exponential fall never comes to 0",
                where="scheduler.floor",
                do="give a floor above 0, as scheduler.floor=0.01, or the factor of a step, as scheduler.gamma=0.999",
            )
        self.gamma, self.floor = gamma, floor
        super().__init__(optimizer, total_steps, warmup, start)

    def factor(self, step: int) -> float:
        """Return the factor of a step after the warm-up."""
        gamma = self.floor ** (1 / self.steps) if self.gamma is None else self.gamma
        return exponential(step, gamma, self.floor)

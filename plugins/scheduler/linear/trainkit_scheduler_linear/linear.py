"""A straight fall to a floor: a pure function of the step."""

from __future__ import annotations

from torch.optim import Optimizer
from trainkit.schedule import FactorScheduler, Share, Steps


def linear(step: int, steps: int, floor: float = 0.0) -> float:
    """Return the factor on the learning rate: floor + (1 - floor) (1 - step / steps).

    Args:
        step: optimizer step, from 0; the floor holds from `steps` on.
        steps: optimizer steps of the fall.
        floor: factor at the end.
    """
    return floor + (1 - floor) * (steps - step) / steps if step < steps else floor


class Linear(FactorScheduler):
    """Raise the learning rate linearly, then lower it linearly; groups keep their ratios.

    The step `total_steps`, at which the floor is reached, is the first one that is no longer made: with a floor of 0 no
    step is wasted.

    Args:
        optimizer: whose groups are scheduled.
        total_steps: optimizer steps of the whole schedule.
        warmup: length of the rise: a whole number of steps, or a fraction of total_steps.
        floor: factor at the end.
        start: factor of the first step; 1 / warm-up steps if not set.

    Source: Goyal et al. 2017, arXiv 1706.02677 (warm-up) and Devlin et al. 2018, arXiv 1810.04805 (with a linear fall)
    [paper].
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup: Steps = 0.1,
        floor: Share = 0.0,
        start: Share | None = None,
    ) -> None:
        self.floor = floor
        super().__init__(optimizer, total_steps, warmup, start)

    def factor(self, step: int) -> float:
        """Return the factor of a step after the warm-up."""
        return linear(step, self.steps, self.floor)

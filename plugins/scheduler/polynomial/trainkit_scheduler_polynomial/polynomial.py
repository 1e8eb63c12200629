"""A fall by a power of the share of steps left: a pure function of the step."""

from __future__ import annotations

from pydantic import PositiveFloat
from torch.optim import Optimizer
from trainkit.schedule import FactorScheduler, Share, Steps


def polynomial(step: int, steps: int, power: float = 2.0, floor: float = 0.0) -> float:
    """Return the factor on the learning rate: floor + (1 - floor) (1 - step / steps)^power.

    Args:
        step: optimizer step, from 0; the floor holds from `steps` on.
        steps: optimizer steps of the fall.
        power: exponent; 1 is the straight line, more falls early, less falls late.
        floor: factor at the end.
    """
    return floor + (1 - floor) * ((steps - step) / steps) ** power if step < steps else floor


class Polynomial(FactorScheduler):
    """Raise the learning rate linearly, then lower it by a power of the share of steps left; groups keep their ratios.

    Args:
        optimizer: whose groups are scheduled.
        total_steps: optimizer steps of the whole schedule.
        power: exponent of the share of steps left; 1 is the straight line, more falls early, less falls late.
        warmup: length of the rise: a whole number of steps, or a fraction of total_steps.
        floor: factor at the end.
        start: factor of the first step; 1 / warm-up steps if not set.

    Source: `torch.optim.lr_scheduler.PolynomialLR` [impl]; Chen et al. 2016, arXiv 1606.00915 (power 0.9) [paper].
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        power: PositiveFloat = 2.0,
        warmup: Steps = 0.1,
        floor: Share = 0.0,
        start: Share | None = None,
    ) -> None:
        self.power, self.floor = power, floor
        super().__init__(optimizer, total_steps, warmup, start)

    def factor(self, step: int) -> float:
        """Return the factor of a step after the warm-up."""
        return polynomial(step, self.steps, self.power, self.floor)

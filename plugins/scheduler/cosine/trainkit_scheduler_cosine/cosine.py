"""Half a cosine down to a floor: a pure function of the step."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from trainkit.schedule import FactorScheduler, Share, Steps


def cosine(step: int, steps: int, floor: float = 0.0) -> float:
    """Return the factor on the learning rate: floor + (1 - floor) (1 + cos(pi step / steps)) / 2.

    Args:
        step: optimizer step, from 0; the floor holds from `steps` on.
        steps: optimizer steps of the fall.
        floor: factor at the end.

    Source: Loshchilov and Hutter 2016, arXiv 1608.03983 [paper], without restarts.
    """
    return floor + (1 - floor) * (1 + math.cos(math.pi * step / steps)) / 2 if step < steps else floor


class Cosine(FactorScheduler):
    """Raise the learning rate linearly, then lower it by half a cosine; groups keep their ratios.

    Its state is the step alone, so a resumed run continues with the very same rates.

    Args:
        optimizer: whose groups are scheduled.
        total_steps: optimizer steps of the whole schedule.
        warmup: length of the rise: a whole number of steps, or a fraction of total_steps.
        floor: factor at the end.
        start: factor of the first step; 1 / warm-up steps if not set.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup: Steps = 0.1,
        floor: Share = 0.01,
        start: Share | None = None,
    ) -> None:
        self.floor = floor
        super().__init__(optimizer, total_steps, warmup, start)

    def factor(self, step: int) -> float:
        """Return the factor of a step after the warm-up."""
        return cosine(step, self.steps, self.floor)

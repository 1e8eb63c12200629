"""The learning rate as it is, after a warm-up where one is wanted."""

from __future__ import annotations

from torch.optim import Optimizer
from trainkit.schedule import FactorScheduler, Share, Steps


class Constant(FactorScheduler):
    """Leave learning rates as they are, after a linear warm-up where one is wanted.

    It stands where a scheduler is needed and none is wanted, as for an optimizer that sets its rates itself.

    Args:
        optimizer: whose groups are scheduled.
        total_steps: optimizer steps of the whole schedule.
        warmup: length of the rise: a whole number of steps, or a fraction of total_steps; 0 for none.
        start: factor of the first step; 1 / warm-up steps if not set.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: Steps = 0, start: Share | None = None) -> None:
        super().__init__(optimizer, total_steps, warmup, start)

    def factor(self, step: int) -> float:
        """Return 1."""
        del step
        return 1.0

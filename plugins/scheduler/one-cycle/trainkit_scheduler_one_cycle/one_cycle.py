"""One rise and one fall over the whole training: a pure function of the step."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from trainkit import UsageError
from trainkit.schedule import FactorScheduler, Fraction, Share, Steps


def swing(step: int, total: int, warmup: int) -> float:
    """Return how far up the cycle a step is: by half cosines from 0 to 1 at the peak, and back to 0 at the last step.

    Args:
        step: optimizer step, from 0.
        total: optimizer steps of the cycle; from the last of them on it is 0.
        warmup: optimizer steps of the rise; the last of them is the peak. Without a rise the first step is.
    """
    peak, last = max(warmup - 1, 0), total - 1
    if step <= peak:
        return (1 - math.cos(math.pi * step / peak)) / 2 if peak else 1.0
    return (1 + math.cos(math.pi * (step - peak) / (last - peak))) / 2 if step < last else 0.0


def one_cycle(step: int, total: int, warmup: int, start: float = 0.04, floor: float = 4e-6) -> float:
    """Return the factor on the learning rate: from `start` up to 1, then down to `floor` at the last step.

    Args:
        step: optimizer step, from 0; the floor holds from the last step on.
        total: optimizer steps of the cycle.
        warmup: optimizer steps of the rise.
        start: factor of the first step.
        floor: factor of the last step.

    Source: Smith and Topin 2017, arXiv 1708.07120 [paper]; cosines for lines, and one fall to a floor for two, as in
    `torch.optim.lr_scheduler.OneCycleLR` [impl].
    """
    bottom = start if step < warmup else floor
    return bottom + (1 - bottom) * swing(step, total, warmup)


class OneCycle(FactorScheduler):
    """Raise the learning rate once to its full height, then lower it far below where it began; groups keep ratios.

    With `momentum`, momentum goes the other way: highest at both ends, lowest at the peak. It is `momentum` of a group,
    or the first of its `betas`.

    Args:
        optimizer: whose groups are scheduled; their learning rates are those of the peak.
        total_steps: optimizer steps of the whole schedule.
        warmup: length of the rise, by half a cosine: a whole number of steps, or a fraction of total_steps.
        start: factor of the first step.
        floor: factor of the last step.
        momentum: lowest and highest momentum, as [0.85, 0.95]; left alone if not set.

    Raises:
        UsageError: `momentum` for an optimizer without one, or with the higher value first.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup: Steps = 0.3,
        start: Share = 0.04,
        floor: Share = 4e-6,
        momentum: tuple[Fraction, Fraction] | None = None,
    ) -> None:
        self.floor, self.momentum = floor, momentum
        if momentum is not None:
            _check_momentum(optimizer, momentum)
        super().__init__(optimizer, total_steps, warmup, start)

    def rise(self, step: int) -> float:
        """Return the factor of a step of the rise."""
        return one_cycle(step, self.total_steps, self.warmup, self.start, self.floor)

    def factor(self, step: int) -> float:
        """Return the factor of a step after the rise."""
        return self.rise(self.warmup + step)

    def set_rates(self) -> None:
        """Give the groups the learning rates, and the momentum, of the current step."""
        super().set_rates()
        if self.momentum is not None:
            low, high = self.momentum
            value = high - (high - low) * swing(self.last_epoch, self.total_steps, self.warmup)
            for group in self.optimizer.param_groups:
                _set_momentum(group, value)


def _check_momentum(optimizer: Optimizer, momentum: tuple[float, float]) -> None:
    if momentum[0] > momentum[1]:
        raise UsageError(
            f"the lowest momentum comes first (got {momentum[0]:g}, {momentum[1]:g})",
            where="scheduler.momentum",
            do="write --set scheduler.momentum='[0.85, 0.95]'",
        )
    if not all("betas" in group or "momentum" in group for group in optimizer.param_groups):
        raise UsageError(
            f"{type(optimizer).__name__} has no momentum to change",
            where="scheduler.momentum",
            why="its parameter groups have neither betas nor momentum",
            do="leave scheduler.momentum out, or take another optimizer",
        )


def _set_momentum(group: dict[str, Any], value: float) -> None:
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value

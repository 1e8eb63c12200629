"""Warm-up, stable, decay: the part after the warm-up as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from torch.optim import Optimizer
from trainkit import UsageError
from trainkit.schedule import FactorScheduler, Share, Steps, steps_of

Shape = Literal["1-sqrt", "linear", "cosine"]

# Each falls from 1 to 0 as the share x of the decay goes from 0 to 1.
SHAPES: dict[str, Callable[[float], float]] = {
    "1-sqrt": lambda x: 1 - math.sqrt(x),
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
}


def stable_decay(step: int, steps: int, decay: int, shape: Shape = "1-sqrt", floor: float = 0.0) -> float:
    """Return the factor on the learning rate: 1, and over the last steps floor + (1 - floor) f(x), x from 0 to 1.

    Args:
        step: optimizer step, from 0; the floor holds from `steps` on.
        steps: optimizer steps of both parts.
        decay: how many of them, the last ones, are the decay.
        shape: f: 1 - sqrt(x), 1 - x, or (1 + cos(pi x)) / 2.
        floor: factor at the end.

    Source: Hu et al. 2024, arXiv 2404.06395; shapes: Haegele et al. 2024, arXiv 2405.18392 [paper].
    """
    into = step - (steps - decay)
    if decay == 0 or into < 0:
        return 1.0
    return floor + (1 - floor) * SHAPES[shape](into / decay) if into < decay else floor


class WSD(FactorScheduler):
    """Raise the learning rate linearly, keep it, and let it decay over the last steps; groups keep their ratios.

    Args:
        optimizer: whose groups are scheduled.
        total_steps: optimizer steps of the whole schedule.
        decay: length of the decay: a whole number of steps, or a fraction of total_steps.
        shape: how it decays: '1-sqrt', 'linear' or 'cosine'.
        warmup: length of the rise: a whole number of steps, or a fraction of total_steps.
        floor: factor at the end.
        start: factor of the first step; 1 / warm-up steps if not set.

    Raises:
        UsageError: warm-up and decay are together longer than the training.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        decay: Steps = 0.2,
        shape: Shape = "1-sqrt",
        warmup: Steps = 0.1,
        floor: Share = 0.0,
        start: Share | None = None,
    ) -> None:
        self.decay = steps_of(decay, total_steps)
        rise = steps_of(warmup, total_steps)
        if self.decay and rise < total_steps < rise + self.decay:
            raise UsageError(
                f"a warm-up of {rise} and a decay of {self.decay} steps are longer than the {total_steps} steps of the "
                "training",
                where="scheduler.decay",
                do="give it as a fraction, as in --set scheduler.decay=0.2, or train longer",
            )
        self.shape: Shape = shape
        self.floor = floor
        super().__init__(optimizer, total_steps, warmup, start)

    def factor(self, step: int) -> float:
        """Return the factor of a step after the warm-up."""
        return stable_decay(step, self.steps, self.decay, self.shape, self.floor)

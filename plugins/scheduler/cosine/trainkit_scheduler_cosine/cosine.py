"""Linear warm-up, then half a cosine down to a floor: a pure function of the step."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from trainkit import UsageError

Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def warmup_cosine(step: int, total: int, warmup: int = 0, floor: float = 0.0, start: float | None = None) -> float:
    """Return the factor on the learning rate of a step.

    For step < warmup it rises to 1: as start + (1 - start) step / warmup, or without a start as (step + 1) / warmup,
    which does not waste the first step on a rate of 0. Then floor + (1 - floor) (1 + cos(pi x)) / 2, with x from 0 at
    the end of the warm-up to 1 at `total`.

    Args:
        step: optimizer step, from 0; the floor holds from `total` on.
        total: optimizer steps of the whole schedule.
        warmup: optimizer steps of the rise.
        floor: factor at the end.
        start: factor of step 0 [reading]; 0 is the textbook's form.

    Source: Loshchilov and Hutter 2016, arXiv 1608.03983 [paper]; warm-up: Goyal et al. 2017, arXiv 1706.02677 [paper].
    """
    if step < warmup:
        return (step + 1) / warmup if start is None else start + (1 - start) * step / warmup
    if step >= total:
        return floor
    return floor + (1 - floor) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def warmup_steps(warmup: int | float, total: int) -> int:
    """Return the steps of a warm-up given as steps (an int) or as a fraction of the total (a float)."""
    steps = warmup if isinstance(warmup, int) else int(warmup * total)
    if steps and steps >= total:
        raise UsageError(
            f"the warm-up of {steps} steps leaves none of the {total} steps of the training",
            where="scheduler.warmup",
            do="give it as a fraction, as in --set scheduler.warmup=0.1, or train longer",
        )
    return steps


class Cosine(LRScheduler):
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
        warmup: NonNegativeInt | Fraction = 0.1,
        floor: Share = 0.01,
        start: Share | None = None,
    ) -> None:
        self.total_steps = total_steps
        self.warmup = warmup_steps(warmup, total_steps)
        self.floor = floor
        self.start = start
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """Return the factor on the learning rates of a step, whatever the step is now."""
        return warmup_cosine(step, self.total_steps, self.warmup, self.floor, self.start)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group at the current step."""
        factor = self.factor(self.last_epoch)
        return [base * factor for base in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Go to the next optimizer step, or to the given one."""
        # PyTorch's own step() spends its time on warnings and context managers that a closed form does not need.
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        rates = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._last_lr = rates

    def state_dict(self) -> dict[str, Any]:
        """Return the step: everything else is a function of it."""
        return {"step": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the step of a saved state."""
        self.step(state_dict["step"])

"""Lower the learning rate when a monitored value no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt
from torch.optim import Optimizer
from trainkit import hookimpl
from trainkit.errors import unknown_key
from trainkit.fit import direction
from trainkit.schedule import FactorScheduler, Fraction, Share, Steps

if TYPE_CHECKING:
    from trainkit.live import Run

VAL = "val"
Reduction = Annotated[float, Field(gt=0, lt=1)]


def improves(value: float, best: float | None, threshold: float) -> bool:
    """Say whether a value lies below the best by more than a share of the best's size; only a finite one can.

    The size, not the value, is what the share is taken of, so that a best below 0 does not turn the margin round.
    """
    return math.isfinite(value) and (best is None or value < best - threshold * abs(best))


class Plateau(FactorScheduler):
    """Multiply the learning rate by `factor` after more than `patience` evaluations in a row without improvement.

    It hears each evaluation of the validation split, from the end of the warm-up on, and needs at least one before the
    end. Its state (factor so far, best value, evaluations without improvement and of rest) is in every checkpoint. In a
    loop of your own call `evaluated(value)` after each evaluation.

    The monitored value should not be weighed by what is learned: such a total falls, and may fall below 0, though
    nothing gets better. The losses of trainkit have fixed weights in evaluation, so `val/loss` will do.

    Args:
        optimizer: whose groups are scheduled.
        total_steps: optimizer steps of the whole schedule.
        factor: what the rate is multiplied by.
        patience: evaluations in a row without improvement that are borne.
        threshold: least improvement that counts, as a share of the best value.
        cooldown: evaluations after a reduction that are not counted.
        floor: least product of all factors.
        monitor: tag of the value, as val/loss or val/METRIC.
        mode: whether the value should fall (min) or rise (max); auto asks the metric.
        warmup: length of the linear rise: a whole number of steps, or a fraction of total_steps.

    Source: `torch.optim.lr_scheduler.ReduceLROnPlateau` [impl]; its least rate is relative here, so that groups keep
    their ratios, and the margin of an improvement is a share of the best value's size [reading].
    """

    requires_metric = True

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        factor: Reduction = 0.1,
        patience: NonNegativeInt = 10,
        threshold: Fraction = 1e-4,
        cooldown: NonNegativeInt = 0,
        floor: Share = 0.0,
        monitor: Annotated[str, Field(pattern=r"^val/.+$")] = "val/loss",
        mode: Literal["auto", "min", "max"] = "auto",
        warmup: Steps = 0,
    ) -> None:
        self.reduction, self.patience, self.threshold = factor, patience, threshold
        self.cooldown, self.floor = cooldown, floor
        self.monitor, self.mode = monitor, mode
        self.reduced = 1.0
        self.best: float | None = None
        self.bad = 0
        self.resting = 0
        super().__init__(optimizer, total_steps, warmup)

    def factor(self, step: int) -> float:
        """Return the product of all reductions so far."""
        del step
        return self.reduced

    def evaluated(self, value: float) -> None:
        """Hear a value, which should fall unless mode is max; reduce the rates if it did not improve for too long."""
        judged = -value if self.mode == "max" else value
        if improves(judged, self.best, self.threshold):
            self.best, self.bad = judged, 0
        else:
            self.bad += 1
        if self.resting:
            self.resting, self.bad = self.resting - 1, 0
        if self.bad > self.patience:
            self.reduced = max(self.reduced * self.reduction, self.floor)
            self.resting, self.bad = self.cooldown, 0
            self.set_rates()

    @hookimpl
    def after_evaluation(self, run: Run, split: str, results: Mapping[str, float]) -> None:
        """Judge the monitored value of a validation; results are empty where it failed, or measured nothing."""
        if split != VAL or not results or self.last_epoch < self.warmup:
            return
        if self.monitor not in results:
            raise unknown_key(self.monitor, results, "scheduler.monitor")
        value = results[self.monitor]
        rises = self.mode == "auto" and direction(self.monitor, run.metrics) == "max"
        self.evaluated(-value if rises else value)

    def state_dict(self) -> dict[str, Any]:
        """Return the step, and what was learned from the values."""
        state = {"reduced": self.reduced, "best": self.best, "bad": self.bad, "resting": self.resting}
        return super().state_dict() | state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where a saved state was."""
        self.reduced, self.best = state_dict["reduced"], state_dict["best"]
        self.bad, self.resting = state_dict["bad"], state_dict["resting"]
        super().load_state_dict(state_dict)

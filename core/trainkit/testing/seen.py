"""A callback for tests of what selects samples or sets rates: it notes what a run took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainkit.hooks import hookimpl
from trainkit.live import Run


class Seen:
    """Note the samples of each epoch that a loss was computed for, and the learning rate of each step."""

    def __init__(self) -> None:
        self.epochs: list[list[int]] = []
        self.rates: list[float] = []

    @hookimpl
    def on_epoch_start(self) -> None:
        """Begin an epoch."""
        self.epochs.append([])

    @hookimpl(tryfirst=True)
    def on_loss(self, batch: Mapping[str, Any]) -> None:
        """Note samples before another callback leaves some of them out of the backward pass."""
        self.epochs[-1] += batch["sample_id"].tolist()

    @hookimpl
    def on_step(self, run: Run) -> None:
        """Note the rate of the first group of parameters."""
        self.rates.append(run.optimizer.param_groups[0]["lr"])

"""Metrics as sums: what can be added over batches and ranks without averaging averages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


class SumMetric:
    """Keep named sums in float64; subclasses `add` in `update` and take ratios in `compute`.

    Keeps the protocol of torchmetrics (update, compute, reset) without importing it.
    """

    higher_is_better = True

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, **amounts: Tensor | float) -> None:
        """Add to the named sums; tensors stay on their device, so nothing waits for it."""
        for name, amount in amounts.items():
            amount = torch.as_tensor(amount, dtype=torch.float64).detach()
            self.sums[name] = self.sums[name] + amount if name in self.sums else amount

    def total(self, name: str) -> float:
        """Return a sum as a number; a sum nothing was added to is 0."""
        return float(self.sums[name]) if name in self.sums else 0.0

    def ratio(self, part: str, whole: str) -> float:
        """Return part / whole; NaN where the whole is empty, so that 'nothing seen' is not taken for 0 or 1."""
        whole_total = self.total(whole)
        return self.total(part) / whole_total if whole_total else float("nan")

    def merge(self, other: Mapping[str, Tensor]) -> None:
        """Add the sums of another part of the data."""
        self.add(**other)

    def reset(self) -> None:
        """Forget everything."""
        self.sums = {}

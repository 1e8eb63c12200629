"""Reversible instance normalisation: a window forecast about its own level and spread [Kim et al., ICLR 2022]."""

from __future__ import annotations

import torch
from torch import Tensor

# Added to the standard deviation of scaled values, lest a window that hardly moves be blown up.  [reading]
LEAST_SPREAD = 0.1


def level_and_spread(values: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation + 0.1 of the measured values of each window and target, [B, 1, T] each.

    The paper's learned scale and shift are left out. Where nothing was measured they are 0 and 0.1.

    Args:
        values: [B, C, T] scaled; what stands at a missing place is not looked at.
        observed: [B, C, T] bool, True where measured; None for everywhere.
    """
    there = torch.ones_like(values) if observed is None else observed.to(values.dtype)
    measured = values if observed is None else torch.where(observed, values, 0.0)
    count = there.sum(1, keepdim=True).clamp(min=1)
    level = measured.sum(1, keepdim=True) / count
    variance = ((measured - level).square() * there).sum(1, keepdim=True) / count
    return level, variance.sqrt() + LEAST_SPREAD

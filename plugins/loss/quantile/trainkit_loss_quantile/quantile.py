"""Quantile loss: what a forecast of quantiles costs, each level weighing misses above and below by its own odds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from trainkit import LossOutput
from trainkit.likelihood import widened
from trainkit.targets import filled, over_targets


def quantile_loss(quantiles: Tensor, levels: Tensor, truth: Tensor) -> Tensor:
    """Return max(q (y - f), (q - 1) (y - f)) of every value and level: [..., Q].

    Args:
        quantiles: f [..., Q].
        levels: q [Q], each in (0, 1).
        truth: y [...].

    Source: the loss of Temporal Fusion Transformers, arXiv 1912.09363 [paper]; Koenker and Bassett 1978.
    """
    errors = truth.unsqueeze(-1) - quantiles
    return torch.maximum(levels * errors, (levels - 1) * errors)


def crossings(quantiles: Tensor) -> Tensor:
    """Return how many neighbouring levels of each value are out of order: [...] of quantiles [..., Q]."""
    return (quantiles.detach().diff(dim=-1) < 0).sum(-1)


class Quantile(nn.Module):
    """Measure how well quantiles are forecast: summed over levels, averaged over measured values.

    The mean runs over samples, steps of the horizon and targets together; values that were not measured neither cost
    nor count. With several targets each is a part, and a term that a loss around this one can weigh. Part `crossing`
    is the share of neighbouring levels that are out of order. With the one level 0.5 it is half the absolute error.

    Args:
        target_weights: weight of a target by its name, or by its number from 0 where it has none; 1 for the others.

    Source: arXiv 1912.09363 [paper]: the sum over levels; the mean over targets is a [reading].
    """

    def __init__(self, target_weights: dict[str, NonNegativeFloat] | None = None) -> None:
        super().__init__()
        self.target_weights = dict(target_weights or {})
        self._checked = False

    def forward(
        self,
        quantiles: Tensor,
        quantile_levels: Tensor,
        future_values: Tensor,
        future_observed_mask: Tensor | None = None,
        target_names: Sequence[str] | None = None,
    ) -> LossOutput:
        """Return the loss of quantiles [B, H, T, Q] for future_values [B, H, T]; without T for one target."""
        self._check(quantiles, quantile_levels)
        observed, gaps = future_observed_mask, len(quantile_levels) - 1
        _, truth = filled(quantiles[..., 0], future_values, observed)
        losses = quantile_loss(widened(quantiles), quantile_levels, truth).sum(-1)
        output = over_targets(losses, observed, target_names, self.target_weights)
        if gaps:
            crossed = crossings(quantiles)
            crossed = crossed if observed is None else crossed.masked_fill(~observed, 0)
            output.parts = {**output.parts, "crossing": (crossed.sum(), output.count * gaps)}
        return output

    def _check(self, quantiles: Tensor, levels: Tensor) -> None:
        if levels.ndim != 1 or quantiles.shape[-1] != len(levels):
            raise ValueError(
                f"quantiles {list(quantiles.shape)} do not end in the {list(levels.shape)} quantile_levels"
            )
        # Their values are looked at once: to read them makes the processor wait for a GPU.
        if not self._checked:
            values = levels.tolist()
            if sorted(set(values)) != values or not 0 < values[0] <= values[-1] < 1:
                raise ValueError(f"quantile_levels are to rise within (0, 1), not {values}")
            self._checked = True

    def extra_repr(self) -> str:
        return f"target_weights={self.target_weights}" if self.target_weights else ""

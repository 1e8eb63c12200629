"""Losses of several targets over time, [B, H, T], as masked sums by target, for losses to share. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from .contracts import LossOutput
from .errors import UsageError
from .likelihood import per_sample_mean, widened

MOST_PARTS = 32


def filled(forecast: Tensor, truth: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return forecast and truth to compute with: half precision widened, the truth 0 where it was not measured.

    Whatever stands in for a missing value, NaN included, then changes neither the loss nor a gradient.

    Args:
        forecast: [B, H, T], or [B, H] of one target.
        truth: shaped like `forecast`.
        observed: shaped like `truth`, True where it was measured; everywhere if not given.
    """
    if forecast.shape != truth.shape or (observed is not None and observed.shape != truth.shape):
        mask = "" if observed is None else f" and future_observed_mask {list(observed.shape)}"
        raise ValueError(f"forecasts {list(forecast.shape)}, future_values {list(truth.shape)}{mask} differ in shape")
    return widened(forecast), truth if observed is None else truth.masked_fill(~observed, 0.0)


def over_targets(
    losses: Tensor,
    observed: Tensor | None = None,
    names: Sequence[str] | None = None,
    weights: Mapping[str, float] | None = None,
) -> LossOutput:
    """Return a loss that is the mean over measured values, with each target as a part and as a term.

    The sum is weighted and the count is not: the weights are brought to a mean of 1 first, so that a target weighs what
    it is given, and the size of the loss does not depend on the size of the weights. Above 32 targets there are neither
    parts nor terms.

    Args:
        losses: [B, H, T] the loss of each value, or [B, H] of one target.
        observed: shaped like `losses`, True where the truth was measured; everywhere if not given.
        names: names of the T targets; their numbers if not given.
        weights: weight by target, 1 for one that is not named.

    Raises:
        UsageError: a weight of what is no target, or weights that are all 0.
    """
    if losses.ndim == 2:
        losses, observed = losses.unsqueeze(-1), None if observed is None else observed.unsqueeze(-1)
    if observed is None:
        observed = torch.ones_like(losses, dtype=torch.bool)
    else:
        losses = losses.masked_fill(~observed, 0.0)
    known = target_names(losses.shape[-1], names)
    sums, counts = losses.flatten(0, -2).sum(0), observed.flatten(0, -2).sum(0)
    parts, terms = {}, {}
    if 1 < len(known) <= MOST_PARTS:
        terms = dict(zip(known, zip(sums.unbind(), counts.unbind(), strict=True), strict=True))
        parts = {name: (total.detach(), count) for name, (total, count) in terms.items()}
    shares = None
    if weights:
        shares = target_weights(known, weights)
        losses = losses * losses.new_tensor(shares)
        sums = losses.flatten(0, -2).sum(0)
    return LossOutput(
        sums.sum(),
        counts.sum(),
        parts,
        dict(zip(known, shares, strict=True)) if shares and parts else {},
        per_sample=partial(per_sample_mean, losses, observed),
        terms=terms,
    )


def target_names(count: int, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of `count` targets, their numbers from 0 where there are no names."""
    if names is None:
        return tuple(map(str, range(count)))
    if len(names) != count:
        raise ValueError(f"{len(names)} target names ({', '.join(names)}) do not fit {count} targets")
    return tuple(names)


def target_weights(names: Sequence[str], weights: Mapping[str, float]) -> list[float]:
    """Return the weight of each target, 1 for those not named, brought to a mean of 1."""
    if unknown := sorted(set(weights) - set(names)):
        raise UsageError(f"target_weights: there is no target {', '.join(unknown)}", why=f"targets: {', '.join(names)}")
    given = [float(weights.get(name, 1.0)) for name in names]
    if not sum(given):
        raise UsageError("target_weights: all are 0", why="nothing would be learned", do="leave one above 0")
    return [weight * len(given) / sum(given) for weight in given]

"""Targets seen relative to their last value before the horizon, window by window, as prices are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .naive import carried_forward
from .panel import Panel
from .scaling import Array, Scaling


def relative_scale(panel: Panel, rows: np.ndarray, column: int, span: int) -> Array:
    """Return for each series the root mean square of x_{t+S} / x_t - 1 over its rows; NaN where nothing can be told.

    Args:
        panel: the series.
        rows: [N] whether a row may be learned from.
        column: of the values.
        span: S.
    """
    values = panel.values[:, column]
    starts = np.flatnonzero((np.arange(len(panel)) + span <= panel.last) & rows)
    starts = starts[rows[starts + span] & (values[starts] != 0)]
    moves = values[starts + span] / values[starts] - 1
    scales = np.full(len(panel.names), np.nan)
    for number in range(len(panel.names)):
        mine = moves[panel.series[starts] == number]
        mine = mine[np.isfinite(mine)]
        if len(mine) and (deviation := float(np.sqrt(np.mean(mine**2)))) > 0:
            scales[number] = deviation
    return scales


def last_values(past: Tensor, measured: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last measured value [B, T] of pasts [B, C, T], and where it can be divided by."""
    last = carried_forward(past, measured)[:, -1]
    usable = measured.any(dim=1) & (last != 0) & last.isfinite()
    return last, usable


def centred(
    values: Tensor, measured: Tensor, context: int, loc: Tensor, scale: Tensor, relative: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return windows with relative targets scaled by their own last value, and loc and scale of each window.

    A relative target becomes (x / last - 1) / scale; where there is nothing to divide by it keeps what its series has.

    Args:
        values: [B, L, T], relative targets in original units, the others scaled.
        measured: [B, L, T].
        context: steps of the past.
        loc: [B, T] of the series.
        scale: [B, T] of the series; of a relative target that of x / last - 1.
        relative: [T] which targets are relative.
    """
    last, usable = last_values(values[:, :context], measured[:, :context])
    level = torch.where(relative & usable, last, torch.where(relative, loc, 0.0))
    # Without a last value, or without any at all, a level of 1 stands for what cannot be told.
    level = torch.where(relative & (level == 0), 1.0, level)
    centre = torch.where(relative, level, loc)
    spread = torch.where(relative, level.abs() * scale, scale)
    moved = (values - centre[:, None]) / spread[:, None]
    scaled = torch.where(relative, moved, values)
    return torch.where(measured, scaled, 0.0), centre, spread


def with_relative(scaling: Scaling, panel: Panel, rows: np.ndarray, columns: Sequence[int], span: int) -> Scaling:
    """Return scales in which those of relative targets are of x / last - 1; a series without takes the median one.

    Args:
        scaling: of each series.
        panel: the series.
        rows: [N] whether a row may be learned from.
        columns: which targets are relative.
        span: steps of the moves whose usual size is the scale.
    """
    scale = scaling.scale.copy()
    for column in columns:
        found = relative_scale(panel, rows, column, span)
        usual = float(np.median(found[np.isfinite(found)])) if np.isfinite(found).any() else 1.0
        scale[:, column] = np.where(np.isfinite(found), found, usual)
    return replace(scaling, scale=scale)


def usual_span(context: int) -> int:
    """Return the steps over which moves are as large as those that a past of `context` steps shows in the mean."""
    return max(1, context // 2)

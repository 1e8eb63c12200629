"""Scales of series: learned from training rows alone, for each series and column."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Method = Literal["standard", "robust", "asinh", "none"]


def location_and_scale(values: Array, method: Method) -> tuple[Array, Array]:
    """Return loc and scale of each column of values [R, V] with NaN; (x - loc) / scale is scaled.

    Standard: mean and standard deviation (ddof 0). Robust and asinh: median and q75 - q25, the deviation where that is
    0. A column that does not move has scale 1, and one without a number loc NaN.
    """
    with warnings.catch_warnings():
        # An all-NaN column is no fault here: its loc is NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        deviation = np.nanstd(values, axis=0)
        if method in ("robust", "asinh"):
            low, loc, high = np.nanquantile(values, (0.25, 0.5, 0.75), axis=0)
            scale = np.where(high > low, high - low, deviation)
        else:
            loc, scale = np.nanmean(values, axis=0), deviation
    if method == "none":
        loc, scale = np.where(np.isnan(loc), np.nan, 0.0), np.ones_like(scale)
    # What is constant up to rounding does not move.
    moves = np.isfinite(scale) & (scale > 1e-12 * np.maximum(1.0, np.abs(np.nan_to_num(loc))))
    return loc, np.where(moves, scale, 1.0)


def season_error(values: Array, later: np.ndarray, season: int) -> Array:
    """Return mean |y_t - y_{t-m}| of each column of values [N, V]; NaN where no pair was measured.

    Args:
        values: rows, one step after the other.
        later: the rows t, each with the row m steps before it in the same segment.
        season: m.
    """
    steps = np.abs(values[later] - values[later - season])
    measured = np.isfinite(steps)
    total, count = np.where(measured, steps, 0.0).sum(axis=0), measured.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


@dataclass(frozen=True)
class Scaling:
    """Hold what was learned of each series.

    Args:
        names: of the series.
        loc: [series, V].
        scale: [series, V].
        season_error: [series, T], NaN where it is not known.
        known: [series] whether training rows were there; the others take what holds for all series together.
        method: how they were learned; with asinh scaled values are asinh((x - loc) / scale), else (x - loc) / scale.
    """

    names: tuple[str, ...]
    loc: Array
    scale: Array
    season_error: Array
    known: tuple[bool, ...]
    method: Method

    @property
    def asinh(self) -> bool:
        """Return whether scaled values are bent by asinh."""
        return self.method == "asinh"

    def scaled(self, values: Array, series: np.ndarray) -> Array:
        """Return values [N, V] of rows of these series [N], scaled."""
        scaled: Array = (values - self.loc[series]) / self.scale[series]
        return np.arcsinh(scaled) if self.asinh else scaled

    @classmethod
    def learned(
        cls,
        names: Sequence[str],
        series: np.ndarray,
        values: Array,
        follows: np.ndarray,
        train: np.ndarray,
        method: Method,
        season: int,
        targets: int,
    ) -> Scaling:
        """Return scales of the rows that `train` [N] marks.

        Args:
            names: of the series.
            series: [N] number of each row's series.
            values: [N, V].
            follows: [N] whether the row a season before is in the same segment, and may be learned from.
            train: [N] whether a row may be learned from.
            method: how.
            season: steps of a season.
            targets: how many of the first columns are targets.
        """
        locs, scales, errors, known = [], [], [], []
        order = np.argsort(series, kind="stable")
        ends = np.searchsorted(series[order], np.arange(len(names) + 1))
        for number in range(len(names)):
            rows = order[ends[number] : ends[number + 1]]
            rows = rows[train[rows]]
            mine = values[rows]
            loc, scale = location_and_scale(mine, method) if len(rows) else (np.full(values.shape[1], np.nan),) * 2
            locs.append(loc)
            scales.append(scale)
            known.append(bool(np.isfinite(loc[:targets]).any()))
            errors.append(season_error(values[:, :targets], rows[follows[rows]], season))
        loc, scale = np.stack(locs), np.stack(scales)
        there = np.isfinite(loc)
        if not there.all():
            pooled_loc, pooled_scale = location_and_scale(values[train], method)
            loc, scale = np.where(there, loc, np.nan_to_num(pooled_loc)), np.where(there, scale, pooled_scale)
        return cls(tuple(names), loc, scale, np.stack(errors), tuple(known), method)

    def state_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "names": list(self.names),
            "loc": self.loc.tolist(),
            "scale": self.scale.tolist(),
            "season_error": [[None if np.isnan(x) else x for x in row] for row in self.season_error.tolist()],
            "known": list(self.known),
            "method": self.method,
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Scaling:
        """Return what `state_dict` gave."""
        errors = [[np.nan if x is None else x for x in row] for row in state["season_error"]]
        return cls(
            tuple(state["names"]),
            np.array(state["loc"], dtype=np.float64),
            np.array(state["scale"], dtype=np.float64),
            np.array(errors, dtype=np.float64),
            tuple(state["known"]),
            state["method"],
        )

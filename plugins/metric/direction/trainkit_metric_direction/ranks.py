"""Rank correlation: whether what was forecast to rise most rose most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEAST_TOGETHER = 3


def ranks(values: Floats) -> Floats:
    """Return the rank of each value from 1; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Floats = (last - (counts - 1) / 2)[place]
    return mean


def rank_correlation(one: Floats, other: Floats) -> float:
    """Return Spearman's correlation; NaN for fewer than two pairs, or where one side is all equal."""
    if len(one) < 2:
        return float("nan")
    a, b = ranks(one), ranks(other)
    a, b = a - a.mean(), b - b.mean()
    spread = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / spread) if spread else float("nan")


def mean_correlation_by(groups: Floats, one: Floats, other: Floats) -> float:
    """Return the mean of Spearman's correlations within groups of at least three pairs; NaN where there is none.

    Groups in which one side is all equal have no correlation and are left out.
    """
    order = np.argsort(groups, kind="stable")
    together = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    found = [rank_correlation(one[rows], other[rows]) for rows in together if len(rows) >= LEAST_TOGETHER]
    told = [value for value in found if not np.isnan(value)]
    return float(np.mean(told)) if told else float("nan")

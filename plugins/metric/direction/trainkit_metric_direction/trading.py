"""What trading on forecasts would have earned: positions, costs, and the figures of a series of returns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BASIS_POINT = 1e-4
ROUNDING = 1e-12


def sharpe(returns: Floats, periods: float = 252.0) -> float:
    """Return mean / standard deviation (n - 1) of the returns, times the root of the periods in a year.

    NaN for fewer than two returns, or where they do not vary.

    Args:
        returns: simple returns of one period each.
        periods: how many of them make a year.
    """
    if len(returns) < 2:
        return float("nan")
    deviation = returns.std(ddof=1)
    varies = deviation > ROUNDING * np.abs(returns).max()
    return float(returns.mean() / deviation * np.sqrt(periods)) if varies else float("nan")


def max_drawdown(returns: Floats) -> float:
    """Return the largest loss since a peak, as a share of the peak; the start is a peak, too. NaN without returns."""
    if not len(returns):
        return float("nan")
    equity = np.concatenate([[1.0], np.cumprod(1 + returns)])
    return float((1 - equity / np.maximum.accumulate(equity)).max())


def changes(series: Floats, positions: Floats) -> Floats:
    """Return |position - the one before| of rows that are sorted by series and time; each series begins at 0."""
    before = np.concatenate([[0.0], positions[:-1]])
    begins = np.concatenate([[True], series[1:] != series[:-1]]) if len(series) else np.zeros(0, bool)
    moved: Floats = np.abs(positions - np.where(begins, 0.0, before))
    return moved


def mean_by(times: Floats, values: Floats) -> Floats:
    """Return the mean of the values of each time, in the order of time."""
    _, place, counts = np.unique(times, return_inverse=True, return_counts=True)
    means: Floats = np.bincount(place, weights=values) / counts
    return means


def traded(
    series: Floats, times: Floats, positions: Floats, returns: Floats, cost_bps: float = 0.0
) -> tuple[Floats, float]:
    """Return the returns of a portfolio by time after costs, and its turnover.

    All series that have a forecast at a time weigh alike [reading]. A change of position costs in proportion: from long
    to short is a change of 2. The last position is not closed.

    Args:
        series: number of the series of each row.
        times: when each position is taken.
        positions: 1 long, -1 short, 0 none.
        returns: of each row until the next.
        cost_bps: cost of a change of 1, in hundredths of a per cent.

    Returns:
        The portfolio's returns in the order of time, and the mean change of position of a row.
    """
    order = np.lexsort((times, series))
    series, times, positions, returns = (column[order] for column in (series, times, positions, returns))
    moved = changes(series, positions)
    net = positions * returns - cost_bps * BASIS_POINT * moved
    return mean_by(times, net), float(moved.mean()) if len(moved) else float("nan")

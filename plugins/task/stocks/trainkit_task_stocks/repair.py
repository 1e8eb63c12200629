"""Repair of single bars: missing prices filled forward, highs and lows that hold open and close. Pure functions."""

from __future__ import annotations

import numpy as np

from .bars import Flags, Numbers
from .rules import high_below_open_or_close, low_above_open_or_close

MOST_FILLED = 3


def runs_longer_than(flags: Flags, most: int) -> Flags:
    """Return rows in runs of more than `most` flagged rows."""
    if not len(flags):
        return flags
    runs = np.cumsum(np.concatenate([[True], flags[1:] != flags[:-1]]))
    return np.asarray(flags & (np.bincount(runs)[runs] > most))


def fill(prices: Numbers, volume: Numbers, most: int = MOST_FILLED) -> tuple[Numbers, Numbers, Flags]:
    """Return prices and volume without missing cells, and which rows cannot be filled.

    A missing open is the last close, a missing close the last price; within high and low where these are there. A
    missing high or low is that of open and close. A bar without any price has no range, and no volume where none is
    written. A missing volume is the last one.

    Args:
        prices: [N, 4] open, high, low, close, NaN where missing.
        volume: [N], NaN where missing.
        most: bars in a row that are filled; of longer runs, and of those nothing comes before, none is.
    """
    prices, volume = prices.copy(), volume.copy()
    without_price = np.asarray(np.isnan(prices).any(axis=1))
    empty = np.asarray(np.isnan(prices).all(axis=1))
    missing = without_price | np.isnan(volume)
    left_out = runs_longer_than(missing, most)
    usable = np.flatnonzero(~missing)
    left_out[: usable[0] if len(usable) else None] = True
    for row in np.flatnonzero(missing & ~left_out):
        if without_price[row]:
            prices[row] = _filled(prices[row], last=prices[row - 1, 3])
        if np.isnan(volume[row]):
            volume[row] = 0.0 if empty[row] else volume[row - 1]
    return prices, volume, left_out


def _filled(bar: Numbers, last: float) -> Numbers:
    open_, high, low, close = bar
    if np.isnan(open_):
        open_ = _within(last, low, high)
    if np.isnan(close):
        close = _within(open_ if not np.isnan(bar[0]) else last, low, high)
    if np.isnan(high):
        high = np.nanmax([open_, low, close])
    if np.isnan(low):
        low = np.nanmin([open_, high, close])
    return np.array([open_, high, low, close])


def _within(price: float, low: float, high: float) -> float:
    return float(np.fmax(np.fmin(price, high), low))


def widened(prices: Numbers) -> Numbers:
    """Return prices whose high and low hold open and close: only the side that does not is moved, and only outwards."""
    prices = prices.copy()
    open_, high, low, close = prices.T
    too_low = high_below_open_or_close(open_, high, close)
    too_high = low_above_open_or_close(open_, low, close)
    prices[too_low, 1] = np.maximum(open_, close)[too_low]
    prices[too_high, 2] = np.minimum(open_, close)[too_high]
    return prices

"""Rules that bars keep: each a function from columns to the rows that break it.

Source: the OHLCV validation of trainkit's specification (8.2). Prices are compared with a relative tolerance of 1e-6.
"""

from __future__ import annotations

import numpy as np

from .bars import Flags, Ints, Numbers

TOLERANCE = 1e-6
DAY = 86_400_000_000
# The factor that makes the median absolute deviation of normal numbers their standard deviation.
NORMAL = 1.4826


def not_a_number(*columns: Numbers) -> Flags:
    """Return rows in which a column is empty, no number, or infinite."""
    return np.asarray(~np.isfinite(np.stack(columns)).all(axis=0))


def not_above_zero(*prices: Numbers) -> Flags:
    """Return rows in which a price is 0 or less."""
    return np.asarray((np.stack(prices) <= 0).any(axis=0))


def high_below_open_or_close(open_: Numbers, high: Numbers, close: Numbers) -> Flags:
    """Return rows whose high is below their open or close."""
    highest = np.maximum(open_, close)
    return np.asarray(high < highest - TOLERANCE * np.abs(highest))


def low_above_open_or_close(open_: Numbers, low: Numbers, close: Numbers) -> Flags:
    """Return rows whose low is above their open or close."""
    lowest = np.minimum(open_, close)
    return np.asarray(low > lowest + TOLERANCE * np.abs(lowest))


def high_below_low(high: Numbers, low: Numbers) -> Flags:
    """Return rows whose high is below their low."""
    return np.asarray(high < low - TOLERANCE * np.abs(low))


def negative_volume(volume: Numbers) -> Flags:
    """Return rows whose volume is below 0."""
    return np.asarray(volume < 0)


def duplicate_time(times: Ints) -> Flags:
    """Return rows, in order of time, that a later row of the same time replaces."""
    flags = np.zeros(len(times), bool)
    flags[:-1] = times[1:] == times[:-1]
    return flags


def step_of(times: Ints) -> int:
    """Return the commonest distance of rows in microseconds; a day where there are less than two."""
    steps = np.diff(times)
    steps = steps[steps > 0]
    if not len(steps):
        return DAY
    sizes, counts = np.unique(steps, return_counts=True)
    return int(sizes[counts.argmax()])


def missing_bars(times: Ints) -> Ints:
    """Return [N]: how many bars are missing before each row; of days those of the weekend only where others trade then.

    Holidays count as missing, since no calendar of the exchange is known: a long weekend is one or two bars.
    """
    missing = np.zeros(len(times), np.int64)
    step = step_of(times)
    if len(times) < 2:
        return missing
    if step != DAY:
        missing[1:] = np.maximum(np.diff(times) // step - 1, 0)
        return missing
    days = (times // DAY).astype("datetime64[D]")
    if np.mean(~np.is_busday(days)) > 0.05:
        missing[1:] = np.maximum(np.diff(days).astype(np.int64) - 1, 0)
    else:
        missing[1:] = np.maximum(np.busday_count(days[:-1], days[1:]) - 1, 0)
    return missing


def gap(times: Ints, bars: int) -> Flags:
    """Return rows before which more than `bars` bars are missing."""
    return np.asarray(missing_bars(times) > bars)


def stale(high: Numbers, low: Numbers, close: Numbers, volume: Numbers, run: int = 5) -> Flags:
    """Return rows in runs of more than `run` bars without range, volume and change of price.

    The change is ours: bars of a fund never have range or volume, and yet are not stale.
    """
    still = (high - low <= TOLERANCE * np.abs(high)) & (volume == 0)
    same = np.zeros(len(close), bool)
    same[1:] = np.abs(close[1:] - close[:-1]) <= TOLERANCE * np.abs(close[1:])
    linked = still & same
    linked[1:] &= still[:-1]
    runs = np.cumsum(~linked)
    return np.asarray(still & (np.bincount(runs)[runs] > run))


def jump(close: Numbers, sigmas: float = 8.0) -> Flags:
    """Return rows whose |log return - median| is above `sigmas` robust deviations of all returns.

    The deviation is 1.4826 times the median absolute one; of returns that are not 0 where that is 0. With less than
    ten returns none is a jump.
    """
    flags = np.zeros(len(close), bool)
    if len(close) < 11:
        return flags
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.diff(np.log(close))
    known = returns[np.isfinite(returns)]
    if not len(known):
        return flags
    middle = float(np.median(known))
    away = np.abs(known - middle)
    sigma = NORMAL * float(np.median(away))
    if sigma == 0 and (away > 0).any():
        sigma = NORMAL * float(np.median(away[away > 0]))
    flags[1:] = np.abs(returns - middle) > sigmas * sigma if sigma > 0 else False
    return flags


def broken(prices: Numbers, volume: Numbers) -> dict[str, Flags]:
    """Return for each rule on single bars the rows that break it: not one is both missing and out of bounds.

    Args:
        prices: [N, 4] open, high, low, close.
        volume: [N].
    """
    open_, high, low, close = prices.T
    with np.errstate(invalid="ignore"):
        return {
            "not a number": not_a_number(open_, high, low, close, volume),
            "not above 0": not_above_zero(open_, high, low, close),
            "high below open or close": high_below_open_or_close(open_, high, close),
            "low above open or close": low_above_open_or_close(open_, low, close),
            "high below low": high_below_low(high, low),
            "negative volume": negative_volume(volume),
        }

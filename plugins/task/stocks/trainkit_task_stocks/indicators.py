"""Indicators of one symbol's bars, in order: each value is made of its own bar and earlier ones alone.

All take and give float64 [N] of finite numbers, and NaN where there is none. Until an indicator has all the bars it
needs it is NaN, and so it is at a missing bar. What follows begins anew, warm-up included: nothing reaches over that.

Sources: Wilder, New Concepts in Technical Trading Systems, 1978 (RSI, ATR); Appel (MACD); Bollinger. Rules of 8.3 of
the project's algorithm reference, which are those of TA-Lib but where a division by 0 is told.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]


class Macd(NamedTuple):
    """Hold line, signal and their difference [N]."""

    line: Floats
    signal: Floats
    histogram: Floats


class Bands(NamedTuple):
    """Hold Bollinger's bands [N], their width as a share of the middle, and where a value lies: 0 lower, 1 upper."""

    middle: Floats
    upper: Floats
    lower: Floats
    width: Floats
    percent: Floats


def sma(values: Floats, length: int) -> Floats:
    """Return the mean of the last `length` values."""
    return _by_run(lambda run: _late(_windows(run, length).mean(-1), len(run)), values)


def deviation(values: Floats, length: int, ddof: int = 0) -> Floats:
    """Return the standard deviation of the last `length` values; exactly 0 where they are all equal."""

    def of(run: Floats) -> Floats:
        windows = _windows(run, length)
        return _late((windows - windows[:, :1]).std(-1, ddof=ddof), len(run))

    return _by_run(of, values)


def ema(values: Floats, length: int) -> Floats:
    """Return the exponential mean with weight 2 / (length + 1), seeded by the mean of the first `length` values."""
    return _by_run(lambda run: _smoothed(run, length, 2 / (length + 1)), values)


def wilder(values: Floats, length: int) -> Floats:
    """Return Wilder's mean, ((length - 1) mean + value) / length, seeded by the mean of the first `length` values."""
    return _by_run(lambda run: _smoothed(run, length, 1 / length), values)


def rsi(close: Floats, length: int = 14) -> Floats:
    """Return Wilder's relative strength, 0 to 100, from bar `length` on; 50 where prices never moved [8.3]."""
    moves = change(close)
    gain, loss = wilder(np.maximum(moves, 0.0), length), wilder(np.maximum(-moves, 0.0), length)
    return 100 * _ratio(gain, gain + loss, 0.5)


def macd(
    close: Floats, fast: int = 12, slow: int = 26, signal: int = 9, seeds: Literal["together", "apart"] = "together"
) -> Macd:
    """Return the fast exponential mean less the slow one, the exponential mean of that, and their difference.

    Args:
        close: [N] prices.
        fast: bars of the fast mean.
        slow: bars of the slow mean, more than `fast`.
        signal: bars of the mean of the line.
        seeds: 'together': the seeds of both means end at bar `slow` - 1, as in TA-Lib; 'apart': each is the mean of
            its own first bars. Both come to the same after some hundred bars.
    """
    late = slow - fast if seeds == "together" else 0

    def line_of(run: Floats) -> Floats:
        quick = _late(_smoothed(run[late:], fast, 2 / (fast + 1)), len(run))
        return quick - _smoothed(run, slow, 2 / (slow + 1))

    line = _by_run(line_of, close)
    mean = ema(line, signal)
    return Macd(line, mean, line - mean)


def bollinger(close: Floats, length: int = 20, deviations: float = 2.0) -> Bands:
    """Return the mean of the last bars and bands of some population deviations about it; percent is 0.5 between equals.

    Args:
        close: [N] prices.
        length: bars of mean and deviation.
        deviations: from the middle to a band.
    """
    middle, reach = sma(close, length), deviations * deviation(close, length)
    upper, lower = middle + reach, middle - reach
    percent = _ratio(close - lower, 2 * reach, 0.5)
    return Bands(middle, upper, lower, _ratio(2 * reach, middle, np.nan), percent)


def true_range(high: Floats, low: Floats, close: Floats) -> Floats:
    """Return how far prices went, from the close before on; NaN at the first bar, which has none."""
    before = shifted(close)
    return np.maximum(high, before) - np.minimum(low, before)


def atr(high: Floats, low: Floats, close: Floats, length: int = 14) -> Floats:
    """Return Wilder's mean of the true range, from bar `length` on."""
    return wilder(true_range(high, low, close), length)


def log_return(close: Floats, steps: int = 1) -> Floats:
    """Return ln(price / price `steps` bars before); NaN where a price is not above 0."""
    return change(_logarithm(close), steps)


def change(values: Floats, steps: int = 1) -> Floats:
    """Return value - value `steps` bars before."""
    return _by_run(lambda run: _late(run[steps:] - run[:-steps], len(run)), values)


def gap(opens: Floats, close: Floats) -> Floats:
    """Return ln(open / close before); NaN where a price is not above 0."""
    return _logarithm(opens) - shifted(_logarithm(close))


def bar_range(high: Floats, low: Floats, close: Floats) -> Floats:
    """Return (high - low) / close."""
    return _ratio(high - low, close, np.nan)


def volume_ratio(volume: Floats, length: int = 20) -> Floats:
    """Return volume / mean of the last `length`; 1 where nothing was traded in all of them."""
    return _ratio(volume, sma(volume, length), 1.0)


def oscillator(values: Floats, fast: int = 12, slow: int = 26) -> Floats:
    """Return fast / slow exponential mean - 1; 0 where both are 0. Of volume it is the percentage volume oscillator."""
    return _ratio(ema(values, fast), ema(values, slow), 1.0) - 1


def highest(values: Floats, length: int) -> Floats:
    """Return the highest of the last `length` values."""
    return _by_run(lambda run: _late(_windows(run, length).max(-1), len(run)), values)


def shifted(values: Floats) -> Floats:
    """Return the value of the bar before; NaN at the first."""
    return np.concatenate([np.full(1, np.nan), values])[: len(values)]


def _by_run(function: Callable[[Floats], Floats], values: Floats) -> Floats:
    """Return `function` of each stretch of finite values, NaN between them."""
    values = np.asarray(values, dtype=np.float64)
    found = np.full(len(values), np.nan)
    edges = np.flatnonzero(np.diff(np.isfinite(values), prepend=False, append=False))
    for begin, end in edges.reshape(-1, 2):
        found[begin:end] = function(values[begin:end])
    return found


def _smoothed(run: Floats, length: int, weight: float) -> Floats:
    """Return mean + weight (value - mean) from value to value, seeded by the mean of the first `length`."""
    if len(run) < length:
        return np.full(len(run), np.nan)
    seed = float(run[:length].mean())
    # A loop over floats: a bar depends on the one before, and 100,000 take milliseconds.
    means = accumulate(run[length:].tolist(), lambda mean, value: mean + weight * (value - mean), initial=seed)
    return _late(np.fromiter(means, np.float64, len(run) - length + 1), len(run))


def _windows(run: Floats, length: int) -> Floats:
    """Return the windows [N - length + 1, length] of a run; none of one that is too short."""
    if len(run) < length:
        return np.empty((0, length))
    return np.lib.stride_tricks.sliding_window_view(run, length)


def _late(values: Floats, length: int) -> Floats:
    """Return values as the last ones of `length`, NaN before them."""
    return np.concatenate([np.full(length - len(values), np.nan), values])


def _logarithm(prices: Floats) -> Floats:
    return np.log(np.where(prices > 0, prices, np.nan))


def _ratio(over: Floats, under: Floats, otherwise: float) -> Floats:
    """Return over / under, and `otherwise` where there is 0 to divide by."""
    return np.where(under == 0, otherwise, over / np.where(under == 0, 1.0, under))

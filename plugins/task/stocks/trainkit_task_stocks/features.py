"""What a model sees of bars: indicators that mean the same at any price, and the action that would have been right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from trainkit.contracts import IGNORED_LABEL
from trainkit.errors import DataError, UsageError, did_you_mean

from . import indicators
from .indicators import Bands, Floats, Macd

PRICES = ("open", "high", "low", "close")
COLUMNS = (*PRICES, "volume")
BUY, HOLD, SELL = range(3)


class Bars:
    """Hold the columns of one symbol's bars as float64 [N], NaN where there is no finite number."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.open, self.high, self.low, self.close, self.volume = (_finite(frame[name]) for name in COLUMNS)

    @cached_property
    def macd(self) -> Macd:
        """Return MACD(12, 26, 9) of the close, in money."""
        return indicators.macd(self.close)

    @cached_property
    def bollinger(self) -> Bands:
        """Return Bollinger(20, 2) of the close."""
        return indicators.bollinger(self.close)


def _finite(column: pl.Series) -> Floats:
    values = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


def _share(values: Floats, price: Floats) -> Floats:
    """Return values as shares of a price; NaN where it is not above 0."""
    return values / np.where(price > 0, price, np.nan)


INDICATORS: Mapping[str, Callable[[Bars], Floats]] = {
    "rsi_14": lambda bars: indicators.rsi(bars.close),
    "macd": lambda bars: _share(bars.macd.line, bars.close),
    "macd_signal": lambda bars: _share(bars.macd.signal, bars.close),
    "macd_histogram": lambda bars: _share(bars.macd.histogram, bars.close),
    "bollinger_width": lambda bars: bars.bollinger.width,
    "bollinger_percent": lambda bars: bars.bollinger.percent,
    "atr_14": lambda bars: _share(indicators.atr(bars.high, bars.low, bars.close), bars.close),
    "volatility_20": lambda bars: indicators.deviation(indicators.log_return(bars.close), 20, ddof=1),
    "volatility_60": lambda bars: indicators.deviation(indicators.log_return(bars.close), 60, ddof=1),
    "log_return_5": lambda bars: indicators.log_return(bars.close, 5),
    "log_return_20": lambda bars: indicators.log_return(bars.close, 20),
    "log_return_60": lambda bars: indicators.log_return(bars.close, 60),
    "sma_20_distance": lambda bars: _share(bars.close, indicators.sma(bars.close, 20)) - 1,
    "sma_50_distance": lambda bars: _share(bars.close, indicators.sma(bars.close, 50)) - 1,
    "drawdown_60": lambda bars: _share(bars.close, indicators.highest(bars.close, 60)) - 1,
    "volume_oscillator": lambda bars: indicators.oscillator(bars.volume),
    "log_return": lambda bars: indicators.log_return(bars.close),
    "gap": lambda bars: indicators.gap(bars.open, bars.close),
    "range": lambda bars: indicators.bar_range(bars.high, bars.low, bars.close),
    "volume_ratio": lambda bars: indicators.volume_ratio(bars.volume),
}
# What a bar and the one before tell is in the five columns already; as a target it would be noise beside them.
OF_A_BAR = ("log_return", "gap", "range", "volume_ratio")
DEFAULT = tuple(name for name in INDICATORS if name not in OF_A_BAR)


def with_indicators(
    frame: pl.DataFrame, names: Sequence[str] = DEFAULT, begins: Sequence[bool] | None = None
) -> pl.DataFrame:
    """Return one symbol's bars with columns of indicators added; the 16 of DEFAULT make 21 features.

    None depends on the level of prices: what is in money is a share of the close. What needs more bars than there are
    since the begin, a missing value or a break is NaN.

    Args:
        frame: bars in order of time, with columns open, high, low, close, volume, and any others; null or NaN where a
            value is missing.
        names: of INDICATORS, in the order of the columns.
        begins: for each bar whether there is a break before it, over which nothing may reach.

    Raises:
        UsageError: there is no indicator of a name, or it is named twice.
        DataError: a column of bars is missing, or an indicator's name is taken.
    """
    check_indicators(names)
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise DataError(f"bars lack the column {missing[0]!r}", why=f"there are {', '.join(frame.columns)}")
    if taken := [name for name in names if name in frame.columns]:
        raise DataError(
            f"the column {taken[0]!r} is there already",
            why="it is the name of an indicator that is to be computed",
            do="rename the column, or leave the indicator out of task.indicators",
        )
    segments = _segments(len(frame), begins)
    parts = [Bars(frame[begin:end]) for begin, end in segments]
    columns = [pl.Series(name, np.concatenate([INDICATORS[name](bars) for bars in parts])) for name in names]
    return frame.with_columns(columns)


def check_indicators(names: Sequence[str]) -> None:
    """Raise UsageError if there is no indicator of a name, or one is named twice."""
    for place, name in enumerate(names):
        if name not in INDICATORS:
            raise UsageError(
                f"task.indicators: there is no indicator {name!r}{did_you_mean(name, list(INDICATORS))}",
                why=f"there are {', '.join(INDICATORS)}",
            )
        if name in names[:place]:
            raise UsageError(f"task.indicators: {name!r} is named twice")


def _segments(length: int, begins: Sequence[bool] | None) -> list[tuple[int, int]]:
    if begins is None:
        return [(0, length)]
    starts: np.ndarray[Any, np.dtype[np.intp]] = np.flatnonzero(np.asarray(begins, dtype=bool))
    edges = sorted({0, length, *starts.tolist()})
    return list(pairwise(edges)) or [(0, length)]


def action_labels(last_close: Tensor, next_close: Tensor, threshold: float = 0.005) -> Tensor:
    """Return 0 buy where the next close is more than `threshold` above the last one, 2 sell below, else 1 hold.

    -100 where either is missing or the last one is not above 0: what the loss and metrics leave out. The order of
    actions and the rule are those of the loss 'price-action' and the metric 'direction'.

    Args:
        last_close: [B] unscaled; NaN where missing.
        next_close: shaped like `last_close`.
        threshold: a share of the last close.
    """
    moves = next_close.double() / last_close.double() - 1
    actions = torch.where(moves > threshold, BUY, torch.where(moves < -threshold, SELL, HOLD))
    return torch.where(moves.isfinite() & (last_close > 0), actions, IGNORED_LABEL)

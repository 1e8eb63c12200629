"""Indicators against the published values of two libraries, TA-Lib itself, and rules that hold for all of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from trainkit_task_stocks import indicators as ours

REFERENCE = Path(__file__).parent / "data" / "indicator-reference"
FIRST = (44.34, 44.09, 44.15, 43.61, 44.33, 44.83, 45.10, 45.42, 45.84, 46.08)
SECOND = (45.89, 46.03, 45.61, 46.28, 46.28, 46.00, 46.03, 46.41, 46.22, 45.64)
CLOSES = np.array([*FIRST, *SECOND])
NAN = np.nan


def quotes(column: str) -> np.ndarray:
    with (REFERENCE / "default.csv").open(encoding="utf-8") as lines:
        return np.array([float(row[column]) for row in csv.DictReader(lines)])


def published(name: str, field: str) -> np.ndarray:
    rows = json.loads((REFERENCE / f"{name}.standard.json").read_text(encoding="utf-8"))
    return np.array([NAN if row[field] is None else row[field] for row in rows])


def walk(rows: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return open, high, low, close and volume of a random walk."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, rows)))
    opens = close * np.exp(rng.normal(0, 0.01, rows))
    high = np.maximum(opens, close) * (1 + rng.random(rows) / 50)
    low = np.minimum(opens, close) * (1 - rng.random(rows) / 50)
    return opens, high, low, close, rng.integers(1_000, 9_000, rows).astype(np.float64)


def every(opens, high, low, close, volume) -> dict[str, np.ndarray]:
    """Return every indicator there is."""
    return {
        "sma": ours.sma(close, 5),
        "ema": ours.ema(close, 5),
        "wilder": ours.wilder(close, 5),
        "deviation": ours.deviation(close, 5),
        "rsi": ours.rsi(close, 5),
        "change": ours.change(close, 3),
        "true range": ours.true_range(high, low, close),
        "atr": ours.atr(high, low, close, 5),
        "log return": ours.log_return(close, 3),
        "gap": ours.gap(opens, close),
        "range": ours.bar_range(high, low, close),
        "volume ratio": ours.volume_ratio(volume, 5),
        "oscillator": ours.oscillator(volume, 3, 6),
        "highest": ours.highest(close, 5),
        **{f"macd {name}": part for name, part in ours.macd(close, 3, 6, 4)._asdict().items()},
        **{f"macd apart {name}": part for name, part in ours.macd(close, 3, 6, 4, "apart")._asdict().items()},
        **{f"bollinger {name}": part for name, part in ours.bollinger(close, 5)._asdict().items()},
    }


@pytest.mark.parametrize(
    ("name", "field", "found"),
    [
        ("rsi", "rsi", lambda close: ours.rsi(close)),
        ("macd", "macd", lambda close: ours.macd(close, seeds="apart").line),
        ("macd", "signal", lambda close: ours.macd(close, seeds="apart").signal),
        ("macd", "histogram", lambda close: ours.macd(close, seeds="apart").histogram),
        ("macd", "slowEma", lambda close: ours.ema(close, 26)),
        ("bb", "sma", lambda close: ours.bollinger(close).middle),
        ("bb", "upperBand", lambda close: ours.bollinger(close).upper),
        ("bb", "lowerBand", lambda close: ours.bollinger(close).lower),
        ("bb", "percentB", lambda close: ours.bollinger(close).percent),
        ("bb", "width", lambda close: ours.bollinger(close).width),
    ],
)
def test_all_502_days_are_those_of_the_reference(name, field, found):
    wanted = published(name, field)
    assert len(wanted) == 502
    assert_allclose(found(quotes("close")), wanted, rtol=0, atol=1e-6)
    assert_allclose(found(quotes("close")), wanted, rtol=1e-9, atol=1e-9)


def test_both_ways_to_seed_macd_come_to_the_same():
    close = quotes("close")
    together, apart = ours.macd(close), ours.macd(close, seeds="apart")
    assert abs(together.line - apart.line)[25] > 0.1
    assert_allclose(together.line[-1], -6.21977, atol=1e-5)
    assert_allclose(together.line[300:], apart.line[300:], atol=1e-9)


def test_they_are_those_of_talib():
    talib = pytest.importorskip("talib", reason="TA-Lib is not installed: it is in the extra 'test'")
    _, high, low, close, volume = walk(400)
    upper, middle, lower = talib.BBANDS(close, 20, 2, 2)
    bands = ours.bollinger(close)
    pairs = [
        (ours.sma(volume, 20), talib.SMA(volume, 20)),
        (ours.ema(close, 12), talib.EMA(close, 12)),
        (ours.deviation(close, 20), talib.STDDEV(close, 20)),
        (ours.rsi(close), talib.RSI(close, 14)),
        *zip(ours.macd(close), talib.MACD(close, 12, 26, 9), strict=True),
        (bands.upper, upper),
        (bands.middle, middle),
        (bands.lower, lower),
        (ours.true_range(high, low, close), talib.TRANGE(high, low, close)),
        (ours.atr(high, low, close), talib.ATR(high, low, close, 14)),
        (ours.highest(close, 60), talib.MAX(close, 60)),
        (ours.oscillator(volume), talib.EMA(volume, 12) / talib.EMA(volume, 26) - 1),
        (np.expm1(ours.log_return(close, 5)), talib.ROCP(close, 5)),
    ]
    for place, (mine, theirs) in enumerate(pairs):
        # TA-Lib tells the line of MACD only from where there is a signal.
        there = np.isfinite(theirs)
        assert there.sum() > 300, place
        assert_allclose(mine[there], theirs[there], rtol=1e-6, atol=1e-9, err_msg=str(place))


def test_rsi_of_wilder():
    found = ours.rsi(CLOSES)
    assert np.isnan(found[:14]).all()
    assert_allclose(found[14:], [70.464135, 66.249619, 66.480942, 69.346853, 66.294713, 57.915021], atol=1e-6)
    assert_array_equal(ours.rsi(np.full(20, 7.1))[14:], 50)
    assert_array_equal(ours.rsi(np.arange(20.0))[14:], 100)
    assert_array_equal(ours.rsi(-np.arange(20.0))[14:], 0)


def test_macd_with_both_seeds_at_the_same_bar():
    line, signal, histogram = ours.macd(np.arange(1, 41) ** 1.5)
    assert np.isnan(line[:25]).all()
    assert np.isnan(signal[:33]).all()
    assert np.isfinite(line[25:]).all()
    assert np.isfinite(signal[33:]).all()
    assert_allclose(
        [line[33], signal[33], line[39], signal[39]], [45.132371, 41.677032, 50.340050, 46.871175], atol=1e-6
    )
    assert_array_equal(histogram, line - signal)


def test_bollinger_has_the_population_deviation():
    bands = ours.bollinger(CLOSES)
    assert all(np.isnan(part[:19]).all() for part in bands)
    assert_allclose([bands.middle[19], bands.upper[19], bands.lower[19]], [45.409, 47.115328, 43.702672], atol=1e-6)
    assert_allclose(ours.deviation(CLOSES, 20)[19], 0.853164, atol=1e-6)
    assert_allclose(ours.deviation(CLOSES, 20, ddof=1)[19], 0.875328, atol=1e-6)
    assert_allclose(bands.width[19], (47.115328 - 43.702672) / 45.409, atol=1e-6)
    assert_allclose(bands.percent[19], (45.64 - 43.702672) / (47.115328 - 43.702672), atol=1e-6)
    still = ours.bollinger(np.full(25, 0.1))
    assert_array_equal(still.width[19:], 0)
    assert_array_equal(still.percent[19:], 0.5)


def test_atr_returns_range_gap_and_volume_by_hand():
    high, low, close = np.array([3.0, 5, 4, 9]), np.array([1.0, 4, 2, 7]), np.array([2.0, 4.5, 3, 8])
    assert_array_equal(ours.true_range(high, low, close), [NAN, 3, 2.5, 6])
    assert_array_equal(ours.atr(high, low, close, 2), [NAN, NAN, 2.75, 4.375])
    assert_allclose(ours.log_return(close, 2), [NAN, NAN, np.log(1.5), np.log(8 / 4.5)])
    assert_allclose(ours.bar_range(high, low, close), [1, 1 / 4.5, 2 / 3, 0.25])
    assert_allclose(ours.gap(np.array([2.0, 1, 9, 3]), close), [NAN, np.log(1 / 2), np.log(2), 0])
    assert_allclose(ours.volume_ratio(np.array([1.0, 3, 0, 0]), 2), [NAN, 1.5, 0, 1])
    assert_array_equal(ours.highest(close, 3), [NAN, NAN, 4.5, 8])
    slow = np.array([3.25, 3.25 / 3 + 2, (3.25 / 3 + 2) / 3 + 16 / 3])
    assert_allclose(ours.oscillator(close, 1, 2)[1:], close[1:] / slow - 1)
    assert_array_equal(ours.oscillator(np.zeros(3), 1, 2), [NAN, 0, 0])


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_what_is_too_short_is_all_warm_up(rows):
    bars = walk(rows)
    assert all(len(found) == rows for found in every(*bars).values())
    assert all(np.isnan(part).all() for part in (*ours.macd(bars[3]), *ours.bollinger(bars[3]), ours.rsi(bars[3])))


def test_after_a_missing_bar_everything_begins_anew():
    bars = walk(80)
    broken = [np.concatenate([column[:40], [NAN], column[40:]]) for column in bars]
    found, before = every(*broken), every(*(column[:40] for column in bars))
    after = every(*(column[40:] for column in bars))
    for name, values in found.items():
        assert_array_equal(values, np.concatenate([before[name], [NAN], after[name]]), err_msg=name)


def test_prices_that_are_0_or_below_have_no_return_and_no_range():
    close = np.array([1.0, 0, 2, -1])
    assert np.isnan(ours.log_return(close)).all()
    assert np.isnan(ours.gap(close, close)).all()
    assert_array_equal(np.isnan(ours.bar_range(close, close, close)), [False, True, False, False])
    assert np.isnan(ours.bollinger(np.zeros(20)).width).all()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_later_bars_never_change_an_earlier_value(data):
    rows = data.draw(st.integers(12, 60), label="rows")
    now = data.draw(st.integers(0, rows - 2), label="now")
    bars, other = walk(rows, seed=1), walk(rows, seed=data.draw(st.integers(2, 1_000), label="seed"))
    holes = data.draw(st.lists(st.integers(0, rows - 1), max_size=3), label="missing")
    later = np.arange(rows) > now
    for column in (*bars, *other):
        column[holes] = NAN
    changed = every(*(np.where(later, b, a) for a, b in zip(bars, other, strict=True)))
    for name, values in every(*bars).items():
        assert_array_equal(values[: now + 1], changed[name][: now + 1], err_msg=name)
    # What is compared is told apart: the bar after does change.
    if now + 1 not in holes:
        assert changed["range"][now + 1] != ours.bar_range(bars[1], bars[2], bars[3])[now + 1]

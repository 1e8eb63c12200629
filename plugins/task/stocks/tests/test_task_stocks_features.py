"""Features of bars, and labels of actions."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from trainkit import Registry
from trainkit.errors import DataError, UsageError
from trainkit_task_stocks import indicators
from trainkit_task_stocks.features import COLUMNS, DEFAULT, INDICATORS, OF_A_BAR, action_labels, with_indicators


def bars(rows=120, seed=0, level=1.0) -> pl.DataFrame:
    """Return a random walk that begins at 50 times `level`."""
    rng = np.random.default_rng(seed)
    close = 50 * level * np.exp(np.cumsum(rng.normal(0, 0.02, rows)))
    opens = close * np.exp(rng.normal(0, 0.01, rows))
    return pl.DataFrame(
        {
            "time": np.arange(rows),
            "open": opens,
            "high": np.maximum(opens, close) * 1.01,
            "low": np.minimum(opens, close) * 0.99,
            "close": close,
            "volume": rng.integers(1_000, 9_000, rows),
        }
    )


def test_there_are_21_features_and_none_knows_the_level_of_prices():
    frame = with_indicators(bars())
    assert frame.columns == ["time", *COLUMNS, *DEFAULT]
    assert len(COLUMNS) + len(DEFAULT) == 21
    all_of = [with_indicators(bars(level=level), tuple(INDICATORS)).select(list(INDICATORS)) for level in (1, 900)]
    assert_allclose(all_of[0].to_numpy(), all_of[1].to_numpy(), atol=1e-9)
    assert all_of[0][60:].to_numpy().std(axis=0).min() > 0


def test_warm_up_is_nan_and_as_long_as_is_told():
    frame = with_indicators(bars(), tuple(INDICATORS))
    first = {name: int(np.isfinite(frame[name].to_numpy()).argmax()) for name in INDICATORS}
    assert first == {
        **dict.fromkeys(("rsi_14", "atr_14"), 14),
        **dict.fromkeys(("macd", "volume_oscillator"), 25),
        **dict.fromkeys(("macd_signal", "macd_histogram"), 33),
        **dict.fromkeys(("bollinger_width", "bollinger_percent", "sma_20_distance", "volume_ratio"), 19),
        **dict.fromkeys(("volatility_20", "log_return_20"), 20),
        **dict.fromkeys(("volatility_60", "log_return_60"), 60),
        **dict.fromkeys(("log_return", "gap"), 1),
        "log_return_5": 5,
        "sma_50_distance": 49,
        "drawdown_60": 59,
        "range": 0,
    }
    assert all(np.isfinite(frame[name].to_numpy()[place:]).all() for name, place in first.items())
    assert frame.null_count().sum_horizontal().item() == 0


def test_what_the_default_leaves_out_is_told_by_a_bar_and_the_one_before():
    assert set(OF_A_BAR) < set(INDICATORS)
    frame = bars()
    bars_60 = with_indicators(frame, OF_A_BAR)[60].select(list(OF_A_BAR)).to_numpy()
    alone = with_indicators(frame[41:61], OF_A_BAR)[19].select(list(OF_A_BAR)).to_numpy()
    assert_allclose(bars_60, alone)


def test_what_is_in_money_becomes_a_share_of_the_close():
    frame = with_indicators(bars(), ["atr_14", "macd", "sma_50_distance"])
    high, low, close = (frame[name].to_numpy() for name in ("high", "low", "close"))
    assert_array_equal(frame["atr_14"].to_numpy(), indicators.atr(high, low, close) / close)
    assert_array_equal(frame["macd"].to_numpy(), indicators.macd(close).line / close)
    assert_allclose(frame["sma_50_distance"][60], close[60] / close[11:61].mean() - 1)


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
def test_nothing_reaches_over_a_missing_bar(missing):
    frame = bars()
    broken = frame.with_columns(
        pl.when(pl.col("time") == 59).then(pl.lit(missing, pl.Float64)).otherwise(pl.col(name)).alias(name)
        for name in COLUMNS
    )
    names = tuple(INDICATORS)
    found = with_indicators(broken, names).select(list(names))
    assert np.isnan(found[59].to_numpy()).all()
    assert_array_equal(found[60:].to_numpy(), with_indicators(frame[60:], names).select(list(names)).to_numpy())


def test_nothing_reaches_over_a_break():
    frame = bars()
    begins = np.isin(np.arange(120), [0, 60])
    names = tuple(INDICATORS)
    found = with_indicators(frame, names, begins).select(list(names))
    for part in (slice(0, 60), slice(60, 120)):
        assert_array_equal(found[part].to_numpy(), with_indicators(frame[part], names).select(list(names)).to_numpy())
    assert not np.isfinite(found[60]["log_return"].item())


def test_without_bars_there_are_columns():
    assert with_indicators(bars()[:0]).shape == (0, 22)


def test_names_are_checked():
    with pytest.raises(UsageError, match=r"no indicator 'rsi_41'; did you mean 'rsi_14'\?\n.*there are rsi_14, macd"):
        with_indicators(bars(), ["rsi_41"])
    with pytest.raises(UsageError, match="'macd' is named twice"):
        with_indicators(bars(), ["macd", "range", "macd"])
    with pytest.raises(DataError, match=r"(?s)lack the column 'volume'.*time, open, high, low, close"):
        with_indicators(bars().drop("volume"))
    with pytest.raises(DataError, match="'range' is there already"):
        with_indicators(bars().with_columns(range=pl.lit(1.0)), ["range"])


def test_labels_are_buy_hold_sell():
    last = torch.tensor([100.0, 100, 100, 100, 100, torch.nan, 100, 0, -1, 100], dtype=torch.float64)
    then = torch.tensor([100.6, 100.49, 100, 99.51, 99.4, 100, torch.nan, 1, 1, torch.inf], dtype=torch.float64)
    labels = action_labels(last, then)
    assert labels.dtype == torch.long
    assert labels.tolist() == [0, 1, 1, 1, 2, -100, -100, -100, -100, -100]
    assert action_labels(last, then, threshold=0.0055).tolist()[:5] == [0, 1, 1, 1, 2]
    assert action_labels(last, then, threshold=0.01).tolist()[:5] == [1] * 5
    assert action_labels(last[:, None], then[:, None]).tolist() == [[label] for label in labels.tolist()]


def test_the_metric_and_the_loss_understand_labels_in_the_same_way():
    torch.manual_seed(0)
    last = 50 + 10 * torch.rand(400)
    then = last * (1 + 0.01 * torch.randn(400))
    labels = action_labels(last, then)
    assert set(labels.tolist()) == {0, 1, 2}
    logits = 8 * torch.nn.functional.one_hot(labels, 3).float()
    registry = Registry()
    metric = registry.load("metric", "direction").target()
    # What the metric makes of the truth itself is right; so are the logits that the labels ask for.
    for actions, given in ((None, labels), (logits, None)):
        metric.reset()
        metric.update(then[:, None, None], then[:, None, None], last[:, None], actions=actions, action_labels=given)
        assert metric.compute()["action-accuracy"] == 1
    loss = registry.load("loss", "price-action").target()
    prices = torch.zeros(400, 1, 1)
    right = loss(prices, logits, prices, labels)
    wrong = loss(prices, logits, prices, 2 - labels)
    assert right.sum / right.count < 0.001
    assert wrong.sum / wrong.count > 1

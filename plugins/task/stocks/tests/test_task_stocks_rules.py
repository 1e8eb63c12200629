"""Rules that bars keep, one by one, and the filling and widening that repairs them."""

from __future__ import annotations

import numpy as np
import pytest
from trainkit_task_stocks import rules
from trainkit_task_stocks.repair import fill, runs_longer_than, widened

DAY = 86_400_000_000
NAN = float("nan")


def broken_by(*bar):
    found = rules.broken(np.array([bar[:4]], float), np.array([bar[4]], float))
    return [rule for rule, where in found.items() if where[0]]


@pytest.mark.parametrize(
    ("bar", "expected"),
    [
        ((10, 11, 9, 10.5, 100), []),
        ((10, 10.2, 9, 10.5, 100), ["high below open or close"]),
        ((10, 11, 10.1, 10.5, 100), ["low above open or close"]),
        ((10, 11, 9, 10.5, -1), ["negative volume"]),
        ((10, 11, 9, 10.5, 0), []),
        ((10, 11, NAN, 10.5, 100), ["not a number"]),
        ((10, float("inf"), 9, 10.5, 100), ["not a number"]),
        ((10, 11, 9, 10.5, NAN), ["not a number"]),
        ((10, 11, 0, 10.5, 100), ["not above 0"]),
        ((23.89, 23.595, 23.85, 24.445, 1), ["high below open or close", "high below low"]),
        ((10, 10.5 * (1 - 1e-7), 9, 10.5, 100), []),
        ((10, 10.5 * (1 - 1e-5), 9, 10.5, 100), ["high below open or close"]),
    ],
)
def test_rules_of_one_bar(bar, expected):
    assert broken_by(*bar) == expected


def test_of_rows_with_the_same_time_all_but_the_last_are_duplicates():
    assert rules.duplicate_time(np.array([1, 1, 2, 3, 3, 3])).tolist() == [True, False, False, True, True, False]


def test_weekends_are_no_gap_where_nobody_trades_then():
    friday = int(np.datetime64("2024-01-05", "us").astype(np.int64))
    days = np.array([friday - DAY, friday, friday + 3 * DAY, friday + 4 * DAY, friday + 13 * DAY])
    assert rules.missing_bars(days).tolist() == [0, 0, 0, 0, 6]
    assert rules.gap(days, 5).tolist() == [False] * 4 + [True]
    assert not rules.gap(days, 6).any()


def test_weekends_are_gaps_where_others_trade_then():
    days = np.arange(20) * DAY
    kept = np.delete(days, [8, 9, 10])
    assert rules.missing_bars(kept).tolist() == [0] * 8 + [3] + [0] * 8


def test_minutes_count_by_their_step():
    minutes = np.array([0, 1, 2, 3, 10]) * 60_000_000
    assert rules.missing_bars(minutes).tolist() == [0, 0, 0, 0, 6]


def test_stale_runs_have_no_range_volume_or_change():
    close = np.array([1.0, 2, 2, 2, 2, 2, 2, 3, 3, 3])
    volume = np.array([5.0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    assert np.flatnonzero(rules.stale(close, close, close, volume, run=5)).tolist() == [1, 2, 3, 4, 5, 6]
    assert not rules.stale(close, close, close, volume, run=6).any()
    assert not rules.stale(close, close, close, volume + 1, run=2).any()
    fund = np.linspace(1, 2, 10)
    assert not rules.stale(fund, fund, fund, np.zeros(10), run=2).any()


def test_a_jump_is_far_above_the_robust_deviation():
    steps = np.random.default_rng(0).normal(0, 0.01, 200)
    steps[50], steps[120] = 0.15, 0.05
    close = 100 * np.exp(np.cumsum(steps))
    assert np.flatnonzero(rules.jump(close)).tolist() == [50]
    assert 120 in np.flatnonzero(rules.jump(close, sigmas=4))


def test_no_jump_in_constant_or_short_prices():
    assert not rules.jump(np.full(50, 3.0)).any()
    assert not rules.jump(np.array([1.0, 2, 1, 2])).any()


def test_runs_longer_than():
    flags = np.array([True, True, False, True, True, True, False])
    assert np.flatnonzero(runs_longer_than(flags, 2)).tolist() == [3, 4, 5]


GOOD = [10.0, 11.0, 9.0, 10.5]


@pytest.mark.parametrize(
    ("bar", "filled"),
    [
        ([NAN, 11, 9, 10], [10.5, 11, 9, 10]),
        ([NAN, 10.2, 9, 10], [10.2, 10.2, 9, 10]),
        ([NAN, NAN, NAN, 12], [10.5, 12, 10.5, 12]),
        ([10, 11, 9, NAN], [10, 11, 9, 10]),
        ([NAN, NAN, NAN, NAN], [10.5, 10.5, 10.5, 10.5]),
        ([12, NAN, 11, 11.5], [12, 12, 11, 11.5]),
    ],
)
def test_missing_prices_come_from_the_bar_and_the_last_close(bar, filled):
    prices, _, left_out = fill(np.array([GOOD, bar]), np.array([1.0, 2.0]))
    assert prices[1].tolist() == filled
    assert not left_out.any()


def test_three_bars_are_filled_four_are_not_and_none_before_the_first():
    nothing = [NAN] * 4
    prices = np.array([nothing, GOOD, *[nothing] * 3, GOOD, *[nothing] * 4, GOOD])
    filled, volume, left_out = fill(prices, np.where(np.isnan(prices[:, 0]), NAN, 7.0))
    assert np.flatnonzero(left_out).tolist() == [0, 6, 7, 8, 9]
    assert filled[2:5].tolist() == [[10.5] * 4] * 3
    assert volume[2:5].tolist() == [0.0] * 3
    assert np.isnan(filled[6:10]).all()


def test_a_missing_volume_is_the_last_one():
    _, volume, _ = fill(np.array([GOOD, GOOD]), np.array([7.0, NAN]))
    assert volume.tolist() == [7.0, 7.0]


@pytest.mark.parametrize(
    ("bar", "expected"),
    [
        ([10, 10.2, 9, 10.5], [10, 10.5, 9, 10.5]),
        ([10, 11, 10.1, 10.5], [10, 11, 10, 10.5]),
        ([23.89, 23.595, 23.85, 24.445], [23.89, 24.445, 23.85, 24.445]),
        ([10, 9, 12, 11], [10, 11, 10, 11]),
        (GOOD, GOOD),
    ],
)
def test_only_the_side_that_does_not_hold_is_moved(bar, expected):
    result = widened(np.array([bar], float))
    assert result[0].tolist() == expected
    assert not any(where.any() for where in rules.broken(result, np.ones(1)).values())

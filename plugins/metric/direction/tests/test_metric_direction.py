"""Directions against published values, scipy and numpy; trading against accounts kept by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from trainkit import UsageError
from trainkit.testing import MetricConformance
from trainkit_metric_direction.direction import Direction
from trainkit_metric_direction.ranks import mean_correlation_by, rank_correlation, ranks
from trainkit_metric_direction.trading import max_drawdown, sharpe, traded

RETURNS = np.array([0.01, -0.005, 0.002, 0.013, -0.004])
CLOSES, TRUTH, FORECAST = (100.0, 101.0, 99.0, 100.0), (101.0, 99.0, 100.0, 103.0), (102.0, 100.5, 99.0, 101.0)


def walk(series=4, times=20, steps=3):
    """Return forecasts of random walks that know a little, in no order of time."""
    rng = np.random.default_rng(0)
    prices = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, (series, times + steps)), axis=1))
    rows = [(s, t) for s in range(series) for t in range(1, times)]
    truth = np.array([prices[s, t : t + steps] for s, t in rows])
    last = np.array([prices[s, t - 1] for s, t in rows])
    forecast = last[:, None] + 0.3 * (truth - last[:, None]) + rng.normal(0, 1, truth.shape)
    order = rng.permutation(len(rows))
    return {
        "forecast": torch.tensor(forecast[order]).unsqueeze(-1),
        "truth": torch.tensor(truth[order]).unsqueeze(-1),
        "last_value": torch.tensor(last[order]).unsqueeze(-1),
        "truth_mask": torch.tensor(rng.random((len(rows), steps, 1)) < 0.9),
        "series": torch.tensor([s for s, _ in rows])[order],
        "start": torch.tensor([t for _, t in rows])[order],
    }


def four():
    """Return the four forecasts whose accuracy is published."""
    closes, truth, forecast = (torch.tensor(values) for values in (CLOSES, TRUTH, FORECAST))
    return {
        "forecast": forecast[:, None, None],
        "truth": truth[:, None, None],
        "last_value": closes[:, None],
        "start": torch.arange(4),
    }


def computed(values, **options):
    metric = Direction(**options)
    metric.update(**values)
    return metric.compute()


class TestDirection(MetricConformance):
    component = "direction"
    cases = ((four(), {"accuracy": 0.75, "accuracy-baseline": 0.75}), (walk(), {}))


class TestDirectionOfTheThirdStep(MetricConformance):
    component = "direction"
    options = {"step": 3, "zeros": "skip", "cost_bps": 0.0}
    cases = ((walk(), {}),)


def test_published_accuracy_and_the_policy_for_zeros():
    assert computed(four())["accuracy"] == 0.75
    assert computed(four(), zeros="skip")["accuracy"] == 1.0


def test_persistence_is_always_wrong_or_has_nothing_to_say():
    values = four()
    values["forecast"] = values["last_value"].unsqueeze(1) * (1 + 1e-7)
    found = computed(values)
    assert found["accuracy"] == 0.0
    assert found["turnover"] == 0.0
    assert math.isnan(found["sharpe"])
    assert math.isnan(computed(values, zeros="skip")["accuracy"])


def test_no_move_is_right_where_there_was_none():
    values = four()
    values["forecast"] = values["truth"] = values["last_value"].unsqueeze(1)
    assert computed(values)["accuracy"] == computed(values)["accuracy-baseline"] == 1.0


def test_published_sharpe_and_drawdown():
    assert sharpe(RETURNS) == pytest.approx(6.267114, abs=1e-6)
    assert max_drawdown(RETURNS) == pytest.approx(0.005, abs=1e-12)


def test_published_sharpe_and_drawdown_from_forecasts():
    closes = 100 * np.cumprod(np.concatenate([[1.0], 1 + RETURNS]))
    truth = torch.tensor(closes[1:])[:, None, None]
    found = computed(
        {"forecast": truth * 2, "truth": truth, "last_value": torch.tensor(closes[:-1])[:, None]}, cost_bps=0.0
    )
    assert found["sharpe"] == found["sharpe-hold"] == pytest.approx(6.267114, abs=1e-6)
    assert found["max-drawdown"] == pytest.approx(0.005, abs=1e-9)


def test_drawdown_begins_at_the_start():
    assert max_drawdown(np.array([-0.1, 0.05])) == pytest.approx(0.1)
    assert max_drawdown(np.array([0.1, 0.2])) == 0.0
    assert math.isnan(max_drawdown(np.array([])))


def test_returns_that_do_not_vary_have_no_sharpe():
    assert math.isnan(sharpe(np.array([0.01])))
    assert math.isnan(sharpe(np.zeros(5)))
    assert math.isnan(sharpe(np.full(7, 0.1)))


def test_costs_and_turnover_by_hand():
    series, times = np.array([0.0, 0, 0, 1, 1]), np.array([0.0, 1, 2, 1, 2])
    positions, returns = np.array([1.0, -1, -1, 1, 0]), np.array([0.01, -0.02, 0.03, 0.04, 0.05])
    net, turnover = traded(series, times, positions, returns, cost_bps=10)
    cost = 0.001
    expected = [0.01 - cost, ((0.02 - 2 * cost) + (0.04 - cost)) / 2, (-0.03 + (0 - cost)) / 2]
    assert net == pytest.approx(expected)
    assert turnover == pytest.approx((1 + 2 + 0 + 1 + 1) / 5)
    shuffled = np.array([4, 2, 0, 3, 1])
    again, same = traded(series[shuffled], times[shuffled], positions[shuffled], returns[shuffled], cost_bps=10)
    assert again == pytest.approx(net)
    assert same == pytest.approx(turnover)


@pytest.mark.parametrize("values", [5, 50])
def test_rank_correlation_is_that_of_scipy_also_with_ties(values):
    rng = np.random.default_rng(values)
    one, other = rng.integers(0, values, 200).astype(float), rng.normal(size=200)
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic, abs=1e-12)


def test_ranks_of_ties_are_shared():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


def test_what_is_all_equal_has_no_rank_correlation():
    assert math.isnan(rank_correlation(np.ones(5), np.arange(5.0)))
    assert math.isnan(rank_correlation(np.ones(1), np.ones(1)))
    assert math.isnan(mean_correlation_by(np.zeros(2), np.arange(2.0), np.arange(2.0))), "two pairs always agree or not"


@pytest.mark.parametrize("step", [1, 2])
def test_figures_of_random_walks_by_definition(step):
    values = walk()
    found = computed(values, step=step, cost_bps=3.0)
    there = values["truth_mask"][:, step - 1, 0].numpy()
    last = values["last_value"][:, 0].numpy()[there]
    guess, fact = (values[name][:, step - 1, 0].numpy()[there] - last for name in ("forecast", "truth"))
    series, times = values["series"].numpy()[there], values["start"].numpy()[there]
    assert found["accuracy"] == pytest.approx(np.mean(np.sign(guess) == np.sign(fact)))
    assert found["accuracy-baseline"] == pytest.approx(max(np.mean(fact > 0), np.mean(fact < 0)))
    assert found["rank-ic"] == pytest.approx(spearmanr(guess / last, fact / last).statistic, abs=1e-12)
    groups = [times == t for t in np.unique(times)]
    within = [spearmanr((guess / last)[g], (fact / last)[g]).statistic for g in groups if g.sum() >= 3]
    assert found["rank-ic-cross"] == pytest.approx(np.mean(within), abs=1e-12)
    held: dict[int, float] = {}
    earned, moved = [], []
    for t in np.unique(times)[::step]:
        period = []
        for row in np.flatnonzero(times == t):
            side = np.sign(guess[row])
            change = abs(side - held.get(series[row], 0.0))
            held[series[row]] = side
            moved.append(change)
            period.append(side * fact[row] / last[row] - 3e-4 * change)
        earned.append(np.mean(period))
    assert found["sharpe"] == pytest.approx(np.mean(earned) / np.std(earned, ddof=1) * np.sqrt(252 / step))
    assert found["turnover"] == pytest.approx(np.mean(moved))
    equity = np.cumprod(1 + np.array(earned))
    peaks = [max(1.0, *equity[: i + 1]) for i in range(len(equity))]
    assert found["max-drawdown"] == pytest.approx(max(1 - e / p for e, p in zip(equity, peaks, strict=True)), abs=1e-12)


def test_actions_from_moves_of_half_a_per_cent():
    last = torch.full((6, 1), 100.0)
    forecast = torch.tensor([101.0, 100.4, 99.0, 101.0, 99.0, 100.0])[:, None, None]
    truth = torch.tensor([100.6, 100.4, 99.4, 99.0, 100.0, 102.0])[:, None, None]
    found = computed({"forecast": forecast, "truth": truth, "last_value": last})
    # Chosen buy, hold, sell, buy, sell, hold; right buy, hold, sell, sell, hold, buy.
    assert found["action-accuracy"] == pytest.approx(3 / 6)
    assert found["action-baseline"] == pytest.approx(2 / 6)
    assert found["action-f1"] == pytest.approx(0.5)
    wide = computed({"forecast": forecast, "truth": truth, "last_value": last}, threshold=0.05)
    assert wide["action-accuracy"] == wide["action-f1"] == 1.0


def test_actions_of_a_head_are_compared_with_labels():
    values = {**four(), "actions": torch.eye(3)[[0, 1, 2, 0]], "action_labels": torch.tensor([0, 2, 2, -100])[:, None]}
    found = computed(values)
    assert found["action-accuracy"] == pytest.approx(2 / 3)
    # Buy 1, hold 0 (chosen once, never right), sell 2 * 1 / (1 + 2).
    assert found["action-f1"] == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert found["action-baseline"] == pytest.approx(2 / 3)


def test_trap_always_holding_is_accurate_where_little_moves_and_has_no_f1():
    truth = 100 + 0.25 * torch.randn(200, 1, 1, generator=torch.Generator().manual_seed(0))
    last = torch.full((200, 1), 100.0)
    found = computed({"forecast": last.unsqueeze(1), "truth": truth, "last_value": last})
    assert found["action-accuracy"] == found["action-baseline"] > 0.9
    assert found["action-f1"] < 1 / 3


def test_series_meet_at_a_time_that_they_share():
    values = walk()
    late = values["series"] == 2
    apart = {**values, "start": values["start"] + 1000 * late, "time": values["start"]}
    assert computed(apart) == computed(values)
    del apart["time"]
    assert computed(apart)["rank-ic-cross"] != computed(values)["rank-ic-cross"]


def test_a_target_is_found_by_name():
    values = walk()
    for name in ("forecast", "truth"):
        values[name] = torch.cat([torch.ones_like(values[name]), values[name]], dim=-1)
    values["last_value"] = torch.cat([torch.ones_like(values["last_value"]), values["last_value"]], dim=-1)
    values["truth_mask"] = values["truth_mask"].expand(-1, -1, 2)
    named = {**values, "target_names": ("volume", "close")}
    assert computed(named, target="close") == computed(values, target=1) == computed(walk())
    with pytest.raises(UsageError, match="there is no target open"):
        computed(named, target="open")
    with pytest.raises(UsageError, match="there is no target 2"):
        computed(named, target=2)


def test_values_that_are_no_prices_have_directions_and_no_returns():
    values = four()
    values["last_value"] = values["last_value"] - 100
    values["truth"], values["forecast"] = values["truth"] - 100, values["forecast"] - 100
    found = computed(values)
    assert found["accuracy"] == 0.75
    assert all(math.isnan(found[name]) for name in ("sharpe", "rank-ic", "max-drawdown", "turnover"))


def test_steps_have_accuracies_of_their_own():
    values = walk()
    found = computed(values)
    assert found["accuracy"] == found["accuracy/step-1"]
    assert found["accuracy/step-3"] == computed(values, step=3)["accuracy"]
    assert "accuracy/step-1" not in computed(four())
    with pytest.raises(UsageError, match="4 is beyond the horizon of 3 steps"):
        computed(values, step=4)

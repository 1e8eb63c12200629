"""The difficulty of windows, which selections and curricula read."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from trainkit.data import select
from trainkit.plan import Selection
from trainkit_task_series.difficulty import seasonal_difficulty
from trainkit_task_series.task import SeriesTask


def by_hand(values, measured, season, start, horizon):
    """Return 1 - R^2 of the values a season before, as E / (E + V), from its definition."""
    shares = []
    for target in range(values.shape[1]):
        rows = [i for i in range(start, start + horizon) if measured[i, target] and measured[i - season, target]]
        if not rows:
            continue
        now, before = values[rows, target], values[[i - season for i in rows], target]
        errors, spread = ((now - before) ** 2).sum(), ((now - now.mean()) ** 2).sum()
        shares.append(errors / (errors + spread) if errors + spread > 0 else 0.0)
    return sum(shares) / len(shares) if shares else 1.0


def test_is_what_its_definition_says_with_missing_values():
    generator = np.random.default_rng(0)
    values, measured = generator.normal(3, 2, (80, 2)), generator.random((80, 2)) < 0.8
    measured[60:64] = False
    starts = torch.tensor([12, 30, 55, 60, 75])
    rows = torch.from_numpy(np.where(measured, values, 0.0)).float()
    found = seasonal_difficulty(rows, torch.from_numpy(measured), 6, starts, 4)
    expected = [by_hand(values, measured, 6, start, 4) for start in starts.tolist()]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert expected[3] == 1.0


def test_a_repeated_season_is_easy_noise_is_not_and_a_flat_horizon_is_finite():
    wave = torch.tensor([[math.sin(i * math.pi / 4)] for i in range(64)])
    assert seasonal_difficulty(wave, None, 8, torch.tensor([16, 40]), 8).tolist() == pytest.approx([0, 0], abs=1e-9)
    noise = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
    hard = seasonal_difficulty(noise, None, 8, torch.arange(100, 3900, 10), 24)
    assert 0.6 < float(hard.mean()) < 0.75
    steps = torch.tensor([[0.0]] * 16 + [[5.0]] * 16)
    flat = seasonal_difficulty(steps, None, 8, torch.tensor([8, 16, 24]), 8)
    assert flat.tolist() == pytest.approx([0.0, 1.0, 0.0])


@pytest.fixture
def half_noisy(csv):
    """Return a fitted task and its splits: a daily wave, with noise on the later rows."""
    noise = np.random.default_rng(0).normal(0, 0.5, 400)
    task = SeriesTask(context=48, horizon=8, season=24)
    path = csv(rows=400, value=lambda i: str(math.sin(i * math.pi / 12) + noise[i] * (i > 200)))
    splits = task.read(path, 0)
    assert splits.train.difficulty is None
    task.fit(splits.train)
    return splits


def test_windows_offer_it_once_scales_are_learned(half_noisy):
    train = half_noisy.train
    assert train.difficulty is train.difficulty
    assert len(train.difficulty) == len(train) == len(np.asarray(train.difficulty))
    pairs = list(zip(train.difficulty, train.starts.tolist(), strict=True))
    early = [difficulty for difficulty, start in pairs if start < 150]
    late = [difficulty for difficulty, start in pairs if start > 240]
    assert max(early) < min(late)


def test_a_plan_selects_by_it(half_noisy):
    chosen = select(Selection(easiest=0.4), half_noisy.train, 0, 0)
    assert half_noisy.train.starts[chosen].max() <= 201

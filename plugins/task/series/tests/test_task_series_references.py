"""The reference forecasters: naive ones, NLinear and DLinear."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from trainkit_task_series.linear import LinearForecaster, trend_of
from trainkit_task_series.naive import Persistence, SeasonalNaive, carried_forward, persistence, seasonal_naive

NAN = float("nan")


def column(*values: float) -> torch.Tensor:
    """Return one series of one target, [1, L, 1]."""
    return torch.tensor(values)[None, :, None]


def test_a_missing_value_is_the_last_measured_one_or_else_the_first():
    values = column(NAN, 2, NAN, NAN, 5, NAN)
    assert carried_forward(values, ~values.isnan()).flatten().tolist() == [2, 2, 2, 2, 5, 5]
    nothing = column(NAN, NAN)
    assert carried_forward(nothing, ~nothing.isnan()).flatten().tolist() == [0, 0]
    assert carried_forward(values, None) is values


def test_missing_values_are_filled_as_a_walk_over_them_would():
    torch.manual_seed(0)
    values, observed = torch.randn(4, 30, 3), torch.rand(4, 30, 3) < 0.4
    expected = torch.zeros_like(values)
    for b in range(4):
        for t in range(3):
            measured = [i for i in range(30) if observed[b, i, t]]
            for i in range(30):
                before = [j for j in measured if j <= i]
                expected[b, i, t] = values[b, before[-1] if before else measured[0], t]
    assert torch.equal(carried_forward(values.masked_fill(~observed, NAN), observed), expected)


def test_persistence_repeats_the_last_measured_value():
    values = column(1, 2, 3, NAN)
    assert persistence(values, ~values.isnan(), 3).flatten().tolist() == [3, 3, 3]
    assert Persistence(2)(column(1, 2, 3))["point"].flatten().tolist() == [3, 3]


def test_seasonal_naive_repeats_the_last_season_whatever_the_lengths():
    values = torch.arange(10.0)[None, :, None]
    assert seasonal_naive(values, None, 7, 4).flatten().tolist() == [6, 7, 8, 9, 6, 7, 8]
    assert seasonal_naive(values, None, 2, 4).flatten().tolist() == [6, 7]
    assert SeasonalNaive(3, 10)(values)["point"].flatten().tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="a season of 11 steps does not fit into a past of 10"):
        seasonal_naive(values, None, 2, 11)


def test_seasonal_naive_takes_an_earlier_season_where_the_last_one_is_missing():
    values = torch.arange(10.0)[None, :, None]
    observed = torch.ones(1, 10, 1, dtype=torch.bool)
    assert torch.equal(seasonal_naive(values, observed, 7, 4), seasonal_naive(values, None, 7, 4))
    observed[0, 7] = False
    assert seasonal_naive(values, observed, 4, 4).flatten().tolist() == [6, 3, 8, 9]
    observed[0, 3] = False
    assert seasonal_naive(values, observed, 4, 4).flatten().tolist() == [6, 9, 8, 9], "the phase was never measured"


def test_a_seasonal_wave_is_forecast_without_error():
    wave = torch.sin(torch.arange(60.0) / 12 * 2 * torch.pi)[None, :, None]
    torch.testing.assert_close(seasonal_naive(wave[:, :40], None, 20, 12), wave[:, 40:], atol=1e-5, rtol=0)


def test_the_trend_is_the_moving_average_with_repeated_ends():
    values = torch.randn(2, 30, 3)
    found = trend_of(values, 5)
    for i in range(30):
        places = [min(max(j, 0), 29) for j in range(i - 2, i + 3)]
        torch.testing.assert_close(found[:, i], values[:, places].mean(1))
    constant = torch.full((1, 40, 1), 3.0)
    torch.testing.assert_close(trend_of(constant), constant)


@pytest.mark.parametrize("individual", [False, True])
@pytest.mark.parametrize("decompose", [False, True])
def test_the_linear_models_are_their_published_formulas(decompose, individual):
    torch.manual_seed(0)
    model = LinearForecaster(30, 7, 3, decompose, individual)
    past = torch.randn(4, 30, 3)
    found = model(past)["point"]
    assert found.shape == (4, 7, 3)
    maps = 2 if decompose else 1
    assert sum(p.numel() for p in model.parameters()) == maps * (3 if individual else 1) * (30 * 7 + 7)
    for t in range(3):
        own = t if individual else 0

        def linear(part, x, own=own):
            return F.linear(x, part.weight[own].T, part.bias[own, 0])

        if decompose:
            trend = trend_of(past)[:, :, t]
            expected = linear(model.rest, past[:, :, t] - trend) + linear(model.trend, trend)
        else:
            last = past[:, -1:, t]
            expected = linear(model.rest, past[:, :, t] - last) + last
        torch.testing.assert_close(found[:, :, t], expected, atol=1e-5, rtol=1e-5)


def test_nlinear_moves_with_its_past_and_dlinear_does_not():
    past = torch.randn(2, 30, 1)
    moved = [
        (model(past + 10)["point"] - model(past)["point"] - 10).abs().max()
        for model in (LinearForecaster(30, 5), LinearForecaster(30, 5, decompose=True))
    ]
    assert moved[0] < 1e-4 < moved[1]


def test_quantiles_take_the_place_of_the_point_and_ascend_outside_training():
    model = LinearForecaster(30, 5, 2, quantiles=(0.1, 0.5, 0.9))
    past = torch.randn(8, 30, 2)
    crossing = model(past)
    assert set(crossing) == {"quantiles", "quantile_levels"}
    assert crossing["quantiles"].shape == (8, 5, 2, 3)
    assert (crossing["quantiles"].diff(dim=-1) < 0).any()
    assert (model.eval()(past)["quantiles"].diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("decompose", [False, True])
def test_what_stands_at_a_missing_place_changes_nothing(decompose):
    model = LinearForecaster(30, 5, 2, decompose)
    past, observed = torch.randn(3, 30, 2), torch.rand(3, 30, 2) < 0.7
    before = model(past, observed)["point"]
    assert torch.equal(before, model(past.masked_fill(~observed, NAN), observed)["point"])
    assert before.isfinite().all()


@pytest.mark.parametrize("decompose", [False, True])
def test_the_linear_models_learn_a_line_and_a_wave(decompose):
    torch.manual_seed(0)
    step = torch.arange(600.0)
    windows = (step / 300 + torch.sin(step / 12 * 2 * torch.pi)).unfold(0, 36, 1)[..., None]
    model = LinearForecaster(24, 12, decompose=decompose)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(150):
        rows = torch.randint(len(windows), (64,))
        loss = F.mse_loss(model(windows[rows, :24])["point"], windows[rows, 24:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]


def test_a_past_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"built for 30 steps of 2 targets and is given past_values of shape \(1, 29"):
        LinearForecaster(30, 5, 2)(torch.randn(1, 29, 2))

"""The quantile loss against published values, numpy's quantiles and the absolute error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from trainkit import UsageError
from trainkit.testing import LossConformance
from trainkit_loss_quantile.quantile import Quantile, quantile_loss

LEVELS = torch.tensor([0.1, 0.5, 0.9])
TRUTH = torch.tensor([1.0, 2.0, 3.0])
FORECAST = torch.tensor([[0.5, 1.0, 2.0], [1.0, 2.5, 3.0], [2.0, 2.0, 2.5]])


class TestQuantile(LossConformance):
    component = "quantile"


class TestQuantileWeighted(LossConformance):
    component = "quantile"
    options = {"target_weights": {"0": 3.0, "2": 0.5}}


def test_published_values():
    losses = quantile_loss(FORECAST, LEVELS, TRUTH)
    expected = torch.tensor([[0.05, 0, 0.1], [0.1, 0.25, 0.1], [0.1, 0.5, 0.45]])
    assert torch.allclose(losses, expected, atol=1e-6)
    output = Quantile()(FORECAST[None], LEVELS, TRUTH[None])
    assert float(output.sum / output.count) == pytest.approx(0.55, abs=1e-6)
    assert float(losses.mean()) == pytest.approx(0.183333, abs=1e-6)
    risks = 2 * losses.sum(0) / TRUTH.abs().sum()
    assert risks.tolist() == pytest.approx([0.083333, 0.25, 0.216667], abs=1e-6)


def test_the_median_alone_is_half_the_absolute_error():
    torch.manual_seed(0)
    forecast, truth = torch.randn(4, 5, 3, dtype=torch.float64), torch.randn(4, 5, 3, dtype=torch.float64)
    output = Quantile()(forecast.unsqueeze(-1), torch.tensor([0.5]), truth)
    assert float(output.sum / output.count) == pytest.approx(float((forecast - truth).abs().mean()) / 2, rel=1e-12)
    assert "crossing" not in output.parts


def test_what_makes_it_least_are_the_quantiles_of_the_data():
    data = np.random.default_rng(0).gamma(2.0, size=1001)
    grid = torch.linspace(0, 8, 8001, dtype=torch.float64)
    costs = quantile_loss(grid[:, None, None].expand(-1, 1001, 3), LEVELS.double(), torch.from_numpy(data)).sum(1)
    assert grid[costs.argmin(0)].tolist() == pytest.approx(np.quantile(data, LEVELS.numpy()), abs=1e-3)


def test_gradient_by_finite_differences():
    torch.manual_seed(0)
    quantiles = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    truth, observed = torch.randn(2, 3, 2, dtype=torch.float64), torch.rand(2, 3, 2) < 0.7
    assert torch.autograd.gradcheck(lambda q: Quantile()(q, LEVELS.double(), truth, observed).sum, quantiles)


def test_each_target_is_a_part_and_a_term():
    quantiles = torch.zeros(2, 4, 2, 1)
    truth = torch.tensor([1.0, 3.0]).expand(2, 4, 2)
    observed = torch.ones(2, 4, 2, dtype=torch.bool)
    observed[0, :, 1] = False
    output = Quantile()(quantiles, torch.tensor([0.5]), truth, observed, ["cpu", "memory"])
    assert {name: float(total / count) for name, (total, count) in output.parts.items()} == {"cpu": 0.5, "memory": 1.5}
    assert {name: float(count) for name, (_, count) in output.terms.items()} == {"cpu": 8, "memory": 4}
    assert float(output.sum / output.count) == pytest.approx((8 * 0.5 + 4 * 1.5) / 12)


def test_weights_change_the_balance_and_not_the_scale():
    quantiles, truth = torch.zeros(2, 4, 2, 1), torch.tensor([1.0, 3.0]).expand(2, 4, 2)
    call = (quantiles, torch.tensor([0.5]), truth, None, ["cpu", "memory"])

    def mean(**weights):
        output = Quantile(target_weights=weights)(*call)
        return float(output.sum / output.count)

    assert mean(cpu=3.0) == pytest.approx((3 * 0.5 + 1 * 1.5) / 4)
    assert mean(cpu=3.0) == pytest.approx(mean(cpu=30.0, memory=10.0))
    assert mean(memory=0.0) == pytest.approx(0.5)


def test_crossing_counts_neighbours_out_of_order_that_were_measured():
    quantiles = torch.tensor([[[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [3.0, 2.0, 1.0]]])
    observed = torch.tensor([[True, True, True, False]])
    crossed, pairs = Quantile()(quantiles, LEVELS, torch.zeros(1, 4), observed).parts["crossing"]
    assert (int(crossed), int(pairs)) == (3, 6)


@pytest.mark.parametrize("levels", [[0.5, 0.1, 0.9], [0.1, 0.1, 0.9], [0.0, 0.5, 0.9], [0.1, 0.5, 1.0]])
def test_levels_that_do_not_rise_are_refused(levels):
    with pytest.raises(ValueError, match=r"rise within \(0, 1\)"):
        Quantile()(torch.zeros(1, 2, 1, 3), torch.tensor(levels), torch.zeros(1, 2, 1))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not end in"):
        Quantile()(torch.zeros(1, 2, 1, 4), LEVELS, torch.zeros(1, 2, 1))
    with pytest.raises(ValueError, match="differ in shape"):
        Quantile()(torch.zeros(1, 2, 1, 3), LEVELS, torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"2 target names \(a, b\) do not fit 1 targets"):
        Quantile()(torch.zeros(1, 2, 1, 3), LEVELS, torch.zeros(1, 2, 1), None, ["a", "b"])


def test_weights_of_no_target_are_refused():
    with pytest.raises(UsageError, match="there is no target gpu"):
        Quantile({"gpu": 1.0})(torch.zeros(1, 2, 1, 3), LEVELS, torch.zeros(1, 2, 1))
    with pytest.raises(UsageError, match="all are 0"):
        Quantile({"0": 0.0})(torch.zeros(1, 2, 1, 3), LEVELS, torch.zeros(1, 2, 1))

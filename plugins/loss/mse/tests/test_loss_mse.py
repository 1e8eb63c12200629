"""The mean squared error against PyTorch's, with targets apart and missing values left out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from trainkit.testing import LossConformance
from trainkit_loss_mse.mse import MeanSquaredError


class TestMse(LossConformance):
    component = "mse"


class TestMseWeighted(LossConformance):
    component = "mse"
    options = {"target_weights": {"0": 0.25}}


def test_equals_pytorch():
    torch.manual_seed(0)
    forecast, truth = torch.randn(4, 5, 3), torch.randn(4, 5, 3)
    output = MeanSquaredError()(forecast, truth)
    assert float(output.sum / output.count) == pytest.approx(float(functional.mse_loss(forecast, truth)), rel=1e-6)


def test_targets_are_apart_by_name():
    truth = torch.tensor([1.0, 2.0]).expand(3, 4, 2)
    output = MeanSquaredError()(torch.zeros(3, 4, 2), truth, target_names=("cpu", "disk"))
    assert {name: float(total / count) for name, (total, count) in output.parts.items()} == {"cpu": 1.0, "disk": 4.0}
    assert float(output.sum / output.count) == pytest.approx(2.5)


def test_one_target_has_no_parts_and_many_have_none():
    assert not MeanSquaredError()(torch.zeros(2, 4, 1), torch.ones(2, 4, 1)).parts
    assert not MeanSquaredError()(torch.zeros(2, 4), torch.ones(2, 4)).parts
    assert len(MeanSquaredError()(torch.zeros(2, 4, 32), torch.ones(2, 4, 32)).parts) == 32
    assert not MeanSquaredError()(torch.zeros(2, 4, 33), torch.ones(2, 4, 33)).parts


def test_weights_are_told_and_counts_stay_counts():
    truth = torch.tensor([1.0, 2.0]).expand(3, 4, 2)
    output = MeanSquaredError({"cpu": 3.0})(torch.zeros(3, 4, 2), truth, None, ("cpu", "disk"))
    assert output.weights == {"cpu": 1.5, "disk": 0.5}
    assert float(output.count) == 24
    assert float(output.sum / output.count) == pytest.approx((3 * 1 + 1 * 4) / 4)


def test_missing_values_neither_cost_nor_count():
    point = torch.zeros(1, 3, requires_grad=True)
    output = MeanSquaredError()(point, torch.tensor([[1.0, float("nan"), 3.0]]), torch.tensor([[True, False, True]]))
    output.sum.backward()
    assert (output.sum / output.count).item() == pytest.approx(5.0)
    assert point.grad.tolist() == [[-2.0, 0.0, -6.0]]

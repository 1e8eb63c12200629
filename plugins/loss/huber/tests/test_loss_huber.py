"""The Huber loss against PyTorch's, its two limits, and missing values."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from trainkit.testing import LossConformance
from trainkit_loss_huber.huber import Huber, huber_loss


class TestHuber(LossConformance):
    component = "huber"


class TestHuberWeighted(LossConformance):
    component = "huber"
    options = {"delta": 0.3, "target_weights": {"1": 2.0}}


@pytest.mark.parametrize("delta", [0.1, 1.0, 3.0])
def test_equals_pytorch(delta):
    torch.manual_seed(0)
    forecast = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    truth = 2 * torch.randn(4, 5, 3, dtype=torch.float64)
    output = Huber(delta)(forecast, truth)
    expected = functional.huber_loss(forecast, truth, delta=delta)
    ours, theirs = (torch.autograd.grad(loss, forecast)[0] for loss in (output.sum / output.count, expected))
    assert (output.sum / output.count).item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.allclose(ours, theirs, rtol=1e-12)


def test_its_limits_are_squares_and_sizes():
    errors, nothing = torch.linspace(-3, 3, 13, dtype=torch.float64), torch.zeros(13, dtype=torch.float64)
    assert torch.allclose(huber_loss(errors, nothing, 1e6), errors.square() / 2)
    assert torch.allclose(huber_loss(errors, nothing, 1e-9) / 1e-9, errors.abs(), atol=1e-8)


def test_missing_values_neither_cost_nor_count():
    point = torch.zeros(1, 3, requires_grad=True)
    truth = torch.tensor([[0.5, float("nan"), 4.0]])
    output = Huber()(point, truth, torch.tensor([[True, False, True]]))
    output.sum.backward()
    assert output.sum.item() == pytest.approx(0.125 + 3.5)
    assert float(output.count) == 2
    assert point.grad.tolist() == [[-0.5, 0.0, -1.0]]

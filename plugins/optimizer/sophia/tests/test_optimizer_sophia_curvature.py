"""The estimates of the curvature: unbiased, reproducible, and refused where they do not exist."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from trainkit.optim import OptimizerError
from trainkit_optimizer_sophia.curvature import (
    gauss_newton_bartlett,
    hutchinson,
    positions_that_count,
    twice_differentiable,
)

MATRIX = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
SHARES = torch.tensor([0.5, 0.3, 0.2])


@pytest.mark.parametrize("noise", ["rademacher", "normal"])
def test_hutchinson_is_unbiased(noise):
    point = nn.Parameter(torch.tensor([0.3, -0.7]))
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(4000):
        (estimate,) = hutchinson(0.5 * point @ MATRIX @ point, [point], noise, generator)
        draws.append(estimate)
    found = torch.stack(draws)
    assert found.mean(0).tolist() == pytest.approx([2.0, 1.0], abs=0.15 if noise == "normal" else 0.03)
    assert not found.requires_grad


def test_signs_have_the_lower_variance():
    point = nn.Parameter(torch.tensor([0.3, -0.7]))
    spread = {}
    for noise in ("rademacher", "normal"):
        generator = torch.Generator().manual_seed(0)
        rows = [hutchinson(0.5 * point @ MATRIX @ point, [point], noise, generator)[0] for _ in range(500)]
        spread[noise] = torch.stack(rows).var(0)
    assert bool((spread["rademacher"] < spread["normal"]).all())


def test_what_the_loss_reaches_linearly_or_not_at_all_has_no_curvature():
    bent, straight, apart = (nn.Parameter(torch.ones(2)) for _ in range(3))
    estimates = hutchinson((bent**2).sum() + 3 * straight.sum(), [bent, straight, apart])
    assert [e.tolist() for e in estimates] == [[2, 2], [0, 0], [0, 0]]
    assert [e.tolist() for e in hutchinson(straight.sum(), [straight])] == [[0, 0]]


def test_gauss_newton_bartlett_is_unbiased():
    """The logits are the parameters, at 8 positions alike: the expectation is p (1 - p)."""
    logits = nn.Parameter(SHARES.log())
    generator = torch.Generator().manual_seed(0)
    rows = [gauss_newton_bartlett(logits.expand(2, 4, 3), [logits], generator=generator)[0] for _ in range(8000)]
    assert torch.stack(rows).mean(0).tolist() == pytest.approx([0.25, 0.21, 0.16], abs=0.015)
    assert all(bool((row >= 0).all()) for row in rows[:50])


def test_positions_that_do_not_count_change_nothing():
    logits = nn.Parameter(SHARES.log())
    more = torch.cat([logits.expand(1, 4, 3), 5 * logits.expand(1, 4, 3)], 1)
    counted = torch.tensor([[True] * 4 + [False] * 4])
    draws = [torch.Generator().manual_seed(3) for _ in range(2)]
    (alone,) = gauss_newton_bartlett(logits.expand(1, 4, 3), [logits], generator=draws[0])
    (among,) = gauss_newton_bartlett(more, [logits], counted, generator=draws[1])
    torch.testing.assert_close(alone, among)
    (nothing,) = gauss_newton_bartlett(more, [logits], torch.zeros(1, 8, dtype=torch.bool))
    assert nothing.tolist() == [0, 0, 0]


def test_what_the_logits_do_not_depend_on_has_no_curvature():
    logits, apart = nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.ones(2))
    _, estimate = gauss_newton_bartlett(logits, [logits, apart])
    assert estimate.tolist() == [0, 0]


def test_positions_are_those_the_loss_looks_at():
    logits = nn.Parameter(torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)))
    labels = torch.tensor([[0, 1, -100, -100], [2, 2, 2, -100]])
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
    assert torch.equal(positions_that_count(logits, loss), labels != -100)
    assert float(loss.detach()) > 0
    loss.backward()


@pytest.mark.parametrize("kind", ["squares", "quantile", "binary", "unread", "constant"])
def test_losses_that_are_no_likelihood_are_refused(kind):
    logits = nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    other = nn.Parameter(torch.ones(2))
    loss = {
        "squares": lambda: logits.square().mean(),
        "quantile": lambda: torch.maximum(0.9 * (1 - logits), 0.1 * (logits - 1)).mean(),
        "binary": lambda: F.binary_cross_entropy_with_logits(logits, torch.ones(4, 3)),
        "unread": lambda: other.sum(),
        "constant": lambda: torch.tensor(1.0),
    }[kind]()
    with pytest.raises(OptimizerError, match=r"likelihood under the softmax of `logits`[\s\S]*estimator=hutchinson"):
        positions_that_count(logits, loss)


class Attention(nn.Module):
    """Attend to three rows."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))

    def forward(self):
        rows = self.weight.view(1, 1, 3, 4)
        return F.scaled_dot_product_attention(rows, rows, rows).square().mean()


def test_fused_attention_is_replaced_by_plain():
    model = Attention()
    with twice_differentiable(model):
        loss = model()
    (estimate,) = hutchinson(loss, [model.weight], generator=torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(estimate).all())
    assert float(estimate.abs().sum()) > 0


def test_what_has_no_second_derivative_is_refused_by_name():
    model = Attention()
    with pytest.raises(OptimizerError, match=r"flash_attention\S* is not implemented[\s\S]*gauss-newton-bartlett"):
        hutchinson(model(), [model.weight])


def test_recurrence_runs_without_cudnn():
    model = nn.LSTM(3, 4)
    before = torch.backends.cudnn.enabled
    with twice_differentiable(model):
        assert not torch.backends.cudnn.enabled
        loss = model(torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)))[0].square().mean()
    assert torch.backends.cudnn.enabled == before
    assert all(bool(torch.isfinite(e).all()) for e in hutchinson(loss, list(model.parameters())))


@pytest.mark.parametrize("estimator", [lambda y, params: hutchinson(y.square().mean(), params), gauss_newton_bartlett])
def test_reentrant_checkpointing_is_refused(estimator):
    """It would leave the first layer out without a word."""
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    inputs = torch.ones(2, 3, requires_grad=True)
    params = [*first.parameters(), *second.parameters()]
    with pytest.raises(OptimizerError, match=r"reentrant checkpointing[\s\S]*use_reentrant=False"):
        estimator(second(checkpoint(first, inputs, use_reentrant=True)), params)
    estimates = estimator(second(checkpoint(first, inputs, use_reentrant=False)), params)
    assert float(estimates[0].abs().sum()) > 0


def test_a_compiled_model_is_refused():
    model = nn.Linear(3, 3)
    model.compile(backend="eager")
    with (
        pytest.raises(OptimizerError, match=r"does not work with a compiled model[\s\S]*leave out loop.compile"),
        twice_differentiable(nn.Sequential(model)),
    ):
        pass

from __future__ import annotations

import pytest
import pytorch_optimizer
import torch
from torch import nn
from trainkit.optim import OptimizerError
from trainkit.testing import OptimizerConformance
from trainkit.testing.elementwise import ElementwiseConformance
from trainkit_optimizer_lion.lion import Lion

GRADIENTS = ([0.1, -0.2, 0.3], [-0.1, -0.1, 0.4])
EXPECTED = ([0.989, -1.988, 2.987], [0.998011, -1.976012, 2.974013])


class TestLion(ElementwiseConformance, OptimizerConformance):
    component = "lion"
    learning_rate = 0.015
    state_bytes = 4


def point(values, dtype=torch.float64):
    return nn.Parameter(torch.tensor(values, dtype=dtype))


def test_published_values():
    p = point([1.0, -2, 3])
    optimizer = Lion([p], lr=0.01, weight_decay=0.1)
    for gradient, expected in zip(GRADIENTS, EXPECTED, strict=True):
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        assert p.tolist() == pytest.approx(expected, abs=1e-9)


def test_moves_as_the_reference_library_does():
    generator = torch.Generator().manual_seed(0)
    shapes = [(30,), (20, 40), (50_000,)]
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    options = {"lr": 1e-3, "betas": (0.9, 0.98), "weight_decay": 0.1}
    one, other = Lion(ours, **options), pytorch_optimizer.Lion(theirs, **options)
    for _ in range(50):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        one.step()
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_the_sign_is_taken_before_the_moment_moves():
    # After 1.0 the moment is 0.01. 0.9 x 0.01 outweighs 0.1 x -0.085; 0.9 x (0.99 x 0.01 - 0.01 x 0.085) would not.
    p = point([0.0])
    optimizer = Lion([p], lr=1.0)
    for gradient, expected in ((1.0, -1.0), (-0.085, -2.0)):
        p.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        assert p.item() == expected
    assert optimizer.state[p]["exp_avg"].item() == pytest.approx(0.99 * 0.01 - 0.01 * 0.085)


def test_a_direction_of_zero_moves_nothing():
    p = point([1.0, 1.0])
    p.grad = torch.tensor([0.0, 1.0], dtype=torch.float64)
    Lion([p], lr=0.5).step()
    assert p.tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1e-4}, "Lion: lr = -0.0001"),
        ({"lr": float("inf")}, "Lion: lr = inf"),
        ({"betas": (0.9, 1.0)}, "numbers of at least 0 and below 1"),
        ({"betas": (-0.1, 0.99)}, "numbers of at least 0 and below 1"),
        ({"betas": (0.9,)}, "betas takes 2 numbers"),
        ({"weight_decay": -0.1}, "Lion: weight_decay = -0.1"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(OptimizerError, match=message):
        Lion([point([1.0])], **options)
    with pytest.raises(OptimizerError, match=message):
        Lion([{"params": [point([1.0])], **options}])

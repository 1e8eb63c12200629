from __future__ import annotations

import shutil

import pytest
import pytorch_optimizer
import torch
from torch import nn
from trainkit.optim import OptimizerError
from trainkit.testing import OptimizerConformance
from trainkit_optimizer_sgd.sgd import SGD, sgd

SHAPES = [(5,), (16,), (8, 8), (3, 4), (7, 4), (300, 200), ()]
CASES = [
    {},
    {"weight_decay": 0.1},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"momentum": 0.9, "weight_decay": 0.1, "maximize": True},
]


class TestSGD(OptimizerConformance):
    component = "sgd"
    options = {"momentum": 0.98, "nesterov": True}
    learning_rate = 0.01

    def update(self, optimizer, objective):
        # One rate for all three problems needs the length of the gradient bounded: Rosenbrock's walls are steep.
        optimizer.zero_grad()
        objective().backward()
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
        optimizer.step()


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    # A transposed parameter is not contiguous: it is stepped in lists.
    params.append(nn.Parameter(torch.randn(6, 4, generator=generator).to(dtype).t()))
    return params


def trained(make, steps=50, dtype=torch.float32):
    params = parameters(dtype)
    optimizer = make(params)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(dtype)
        optimizer.step()
    return params, optimizer


def apart(params, others):
    return max(
        float((p - q).detach().abs().max() / q.detach().abs().max()) for p, q in zip(params, others, strict=True)
    )


@pytest.mark.parametrize("options", CASES, ids=str)
def test_equals_torch(options):
    ours, _ = trained(lambda params: SGD(params, lr=0.01, **options))
    theirs, _ = trained(lambda params: torch.optim.SGD(params, lr=0.01, **options))
    assert apart(ours, theirs) <= 1e-6


def test_decoupled_decay_equals_pytorch_optimizer():
    options = {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    ours, _ = trained(lambda params: SGD(params, decoupled=True, **options))
    theirs, _ = trained(lambda params: pytorch_optimizer.SGDW(params, **options))
    assert apart(ours, theirs) <= 1e-6


@pytest.mark.parametrize("options", [*CASES[:4], {**CASES[3], "decoupled": True}], ids=str)
def test_in_place_form_equals_the_formula(options):
    ours, optimizer = trained(lambda params: SGD(params, lr=0.01, **options))
    (group,) = optimizer.param_groups
    numbers = [torch.tensor(number) for number in optimizer.coefficients(group, 1)]
    rows = [(p.detach(), *[torch.zeros_like(p) for _ in optimizer.moments]) for p in parameters()]
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        rows = [sgd(p, torch.randn(p.shape, generator=generator), *rest, *numbers) for p, *rest in rows]
    assert apart(ours, [row[0] for row in rows]) <= 1e-6


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler is installed")
def test_compiled_equals_eager(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINKIT_HOME", str(tmp_path))
    options = {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    eager, _ = trained(lambda params: SGD(params, **options), steps=10)
    compiled, _ = trained(lambda params: SGD(params, compiled=True, **options), steps=10)
    assert apart(compiled, eager) <= 1e-6


def test_values_in_double_precision():
    # The momentum is not averaged: b1 = g1, b2 = .9 g1 + g2.
    point = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
    optimizer = SGD([point], lr=0.01, momentum=0.9)
    for gradient, expected in (
        ([0.1, -0.2, 0.3], [0.999, -1.998, 2.997]),
        ([-0.1, -0.1, 0.4], [0.9991, -1.9952, 2.9903]),
    ):
        point.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        assert point.tolist() == pytest.approx(expected, abs=1e-12)


def test_state_is_one_buffer_with_momentum_and_none_without():
    for momentum, names in ((0.0, {"step"}), (0.9, {"step", "momentum_buffer"})):
        _, optimizer = trained(lambda params, momentum=momentum: SGD(params, momentum=momentum), steps=1)
        assert all(set(state) == names for state in optimizer.state.values())
    assert all(s["momentum_buffer"].numel() == p.numel() for p, s in optimizer.state.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_momentum_in_full(dtype):
    params, optimizer = trained(lambda params: SGD(params, lr=0.01, momentum=0.9), steps=3, dtype=dtype)
    assert all(p.dtype == dtype for p in params)
    assert all(state["momentum_buffer"].dtype == torch.float32 for state in optimizer.state.values())
    full, _ = trained(lambda params: SGD(params, lr=0.01, momentum=0.9), steps=3)
    assert apart([p.float() for p in params], full) <= 0.02


def test_a_group_with_momentum_that_joins_later_moves_as_alone():
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    alone = nn.Parameter(torch.ones(3))
    optimizer, other = SGD([first], lr=0.1), SGD([alone], lr=0.1, momentum=0.9)
    first.grad = torch.ones(3)
    optimizer.step()
    optimizer.add_param_group({"params": [second], "momentum": 0.9})
    for _ in range(3):
        for p in (first, second, alone):
            p.grad = torch.ones(3)
        optimizer.step()
        other.step()
    assert torch.equal(second, alone)
    assert first.tolist() == pytest.approx([0.6] * 3)


def test_momentum_of_a_loaded_state_goes_on():
    _, saved = trained(lambda params: SGD(params, momentum=0.9), steps=2)
    fresh = SGD(parameters())
    fresh.load_state_dict(saved.state_dict())
    assert fresh.moments == ("momentum_buffer",)


def test_takes_a_rate_that_is_a_tensor():
    by_tensor, _ = trained(lambda params: SGD(params, lr=torch.tensor(0.01)), steps=2)
    by_number, _ = trained(lambda params: SGD(params, lr=0.01), steps=2)
    assert apart(by_tensor, by_number) <= 1e-7


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": -1.0}, "lr = -1.0"),
        ({"momentum": 1.0}, "momentum = 1.0"),
        ({"weight_decay": -0.1}, "weight_decay = -0.1"),
        ({"nesterov": True}, "nesterov without momentum"),
    ],
)
def test_refuses(options, text):
    with pytest.raises(OptimizerError, match=text):
        SGD(parameters(), **options)

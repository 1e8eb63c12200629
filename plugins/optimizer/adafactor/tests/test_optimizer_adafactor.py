from __future__ import annotations

import copy
import math

import pytest
import pytorch_optimizer
import torch
import transformers.optimization
from torch import nn
from trainkit.optim import OptimizerError
from trainkit.testing import OptimizerConformance
from trainkit_optimizer_adafactor.adafactor import Adafactor, factored_direction, floored_direction, relative_rate

SHAPES = [(5,), (16,), (8, 8), (8, 8), (3, 4), (4, 3, 3, 3), (300, 200), (70_001,), ()]
WEIGHTS = [[1.0, -2, 3], [0.5, 0.25, -1]]
GRADIENTS = [[0.1, -0.2, 0.3], [0.4, -0.5, 0.6]]
AFTER_ONE = [[0.990121758, -1.984873617, 2.981785423], [0.483151615, 0.266124779, -1.015533444]]
AFTER_TWO = [[0.980297150, -1.969829361, 2.963669740], [0.466394706, 0.282162009, -1.030982550]]
TRANSFORMERS = {"dialect": "transformers"}
ABSOLUTE = {"lr": 1e-3, "relative_step": False}


class TestAdafactor(OptimizerConformance):
    component = "adafactor"
    learning_rate = 0.05
    # Steps are shares of the weights, which grow along Rosenbrock's valley: it takes more of them.
    steps = 1000
    # Two dialects have options of their own beside those that they share.
    most_options = 12


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    # A transposed parameter does not lie as its shape says.
    params.append(nn.Parameter(torch.randn(6, 4, generator=generator).to(dtype).t()))
    return params


def gradients_of(params, steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        yield [torch.randn(p.shape, generator=generator).to(p.dtype) / 10 for p in params]


def trained(make, steps=50, dtype=torch.float32):
    params = parameters(dtype)
    optimizer = make(params)
    for row in gradients_of(params, steps):
        for p, gradient in zip(params, row, strict=True):
            p.grad = gradient
        optimizer.step()
    return params, optimizer


def apart(params, others):
    return max(
        float((p - q).detach().abs().max() / q.detach().abs().max()) for p, q in zip(params, others, strict=True)
    )


@pytest.mark.parametrize("options", [{}, TRANSFORMERS], ids=["torch", "transformers"])
def test_published_values(options):
    matrix = nn.Parameter(torch.tensor(WEIGHTS, dtype=torch.float64))
    optimizer = Adafactor([matrix], **options)
    matrix.grad = torch.tensor(GRADIENTS, dtype=torch.float64)
    optimizer.step()
    assert torch.allclose(matrix.detach(), torch.tensor(AFTER_ONE, dtype=torch.float64), rtol=0, atol=1e-9)
    if not options:
        optimizer.step()
        assert torch.allclose(matrix.detach(), torch.tensor(AFTER_TWO, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.1, "lr": 0.05}, {"eps": (1e-2, 1e-2), "clip_threshold": 1.1}, {"maximize": True}]
)
def test_equals_torch(options):
    theirs_options = {("d" if key == "clip_threshold" else key): value for key, value in options.items()}
    ours, _ = trained(lambda params: Adafactor(params, **options))
    theirs, _ = trained(lambda params: torch.optim.Adafactor(params, **theirs_options))
    assert apart(ours, theirs) <= 2e-6


@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 0.1},
        {"warmup_init": True},
        {"beta1": 0.9, **ABSOLUTE},
        {"scale_parameter": False, "weight_decay": 0.1, **ABSOLUTE},
    ],
    ids=str,
)
def test_equals_transformers(options):
    ours, _ = trained(lambda params: Adafactor(params, dialect="transformers", **options))
    theirs, _ = trained(lambda params: transformers.optimization.Adafactor(params, **options))
    assert apart(ours, theirs) <= 2e-6


def test_equals_pytorch_optimizer():
    # Without momentum, and with a cap on the second decay that these steps do not reach.
    ours, _ = trained(lambda params: Adafactor(params, dialect="transformers"))
    theirs, _ = trained(lambda params: pytorch_optimizer.AdaFactor(params, betas=(None, 0.999)))
    assert apart(ours, theirs) <= 2e-6


@pytest.mark.parametrize("dialect", ["torch", "transformers"])
def test_a_step_in_batches_equals_the_formula_for_one_tensor(dialect):
    ours, _ = trained(lambda params: Adafactor(params, dialect=dialect))
    expected = [alone(number, p, dialect) for number, p in enumerate(parameters())]
    assert apart(ours, expected) <= 1e-6


def alone(number, p, dialect):
    p, row, col = p.detach(), 0.0, 0.0
    eps = torch.finfo(torch.float32).eps
    for step, gradients in enumerate(gradients_of(parameters(), 50), 1):
        g, share = gradients[number], step**-0.8
        squares = g**2 + (1e-30 if dialect == "transformers" else 0)
        if p.ndim < 2:
            row = row + share * (squares - row)
            u = g / row.sqrt().clamp(min=0.0 if dialect == "transformers" else eps)
        else:
            row, col = row + share * (squares.mean(-1) - row), col + share * (squares.mean(-2) - col)
            u = factored_direction(g, row, col) if dialect == "transformers" else floored_direction(g, row, col, eps)
        rate = min(0.01, step**-0.5) * max(1e-3, p.norm() / math.sqrt(p.numel()))
        p = p - rate * u / max(1.0, u.norm() / math.sqrt(u.numel()))
    return p


@pytest.mark.parametrize("options", [{}, TRANSFORMERS], ids=["torch", "transformers"])
def test_keeps_the_sign_of_the_gradient(options):
    vector, matrix = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, 2))
    optimizer = Adafactor([vector, matrix], **options)
    vector.grad, matrix.grad = -torch.ones(3), -torch.ones(3, 2)
    optimizer.step()
    assert bool((vector > 1).all())
    assert bool((matrix > 1).all())


def test_a_step_is_as_long_as_the_root_mean_square_of_the_weights_allows():
    small, large, nothing = (nn.Parameter(torch.full((8, 4), value)) for value in (0.1, 10.0, 0.0))
    optimizer = Adafactor([small, large, nothing])
    for p in (small, large, nothing):
        p.grad = torch.ones(8, 4)
    optimizer.step()
    assert small.detach().mean().item() == pytest.approx(0.1 * 0.99)
    assert large.detach().mean().item() == pytest.approx(10 * 0.99)
    # At 0 the floor eps[1] stands for the weights.
    assert nothing.detach().mean().item() == pytest.approx(-0.01 * 1e-3)


def test_state_is_a_row_and_a_column_for_each_matrix():
    params, optimizer = trained(lambda params: Adafactor(params), steps=1)
    for p in params:
        state = optimizer.state[p]
        expected = {"exp_avg_sq": p.shape}
        if p.ndim > 1:
            expected = {"exp_avg_sq_row": p.shape[:-1], "exp_avg_sq_col": p.shape[:-2] + p.shape[-1:]}
        assert {name: value.shape for name, value in state.items() if name != "step"} == expected
        assert float(state["step"]) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {**TRANSFORMERS, "beta1": 0.9}], ids=["torch", "transformers"])
def test_half_precision_keeps_its_state_in_full(dtype, options):
    params, optimizer = trained(lambda params: Adafactor(params, **options), steps=3, dtype=dtype)
    assert all(p.dtype == dtype for p in params)
    tensors = [value for state in optimizer.state.values() for value in state.values()]
    assert all(value.dtype == torch.float32 for value in tensors)
    full, _ = trained(lambda params: Adafactor(params, **options), steps=3)
    assert apart([p.float() for p in params], full) <= 0.02


def test_a_parameter_that_begins_late_moves_as_one_that_begins_early():
    early, late, vector = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4))
    optimizer = Adafactor([early, late, vector])
    row = [gradients[2][:4, :3] for gradients in gradients_of(parameters(), 5)]
    seen = []
    for step in range(5):
        early.grad, late.grad = row[step], row[step - 2] if step >= 2 else None
        # Now and then a neighbour has no gradient: the others count on.
        vector.grad = torch.ones(4) if step != 3 else None
        optimizer.step()
        seen.append((early.detach().clone(), late.detach().clone()))
    assert torch.equal(seen[4][1], seen[2][0])
    assert [float(optimizer.state[p]["step"]) for p in (early, late, vector)] == [5, 3, 4]


def test_resumes_to_the_bit_with_momentum_and_all_shapes():
    options = {**TRANSFORMERS, "beta1": 0.9}
    straight, _ = trained(lambda params: Adafactor(params, **options), steps=10)
    params = parameters()
    optimizer = Adafactor(params, **options)
    for step, row in enumerate(gradients_of(params, 10)):
        if step == 5:
            state = copy.deepcopy(optimizer.state_dict())
            params = [nn.Parameter(p.detach().clone()) for p in params]
            optimizer = Adafactor(params, **options)
            optimizer.load_state_dict(state)
        for p, gradient in zip(params, row, strict=True):
            p.grad = gradient
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, straight, strict=True))


def test_relative_steps_take_no_scheduler_and_a_factor_as_rate():
    assert relative_rate(1, warmup=False) == 1e-2
    assert relative_rate(40_000, warmup=False) == pytest.approx(1 / 200)
    assert relative_rate(5, warmup=True) == pytest.approx(5e-6)
    relative = Adafactor(parameters(), dialect="transformers")
    assert not relative.takes_scheduler
    assert not relative.takes_rate
    assert relative.param_groups[0]["lr"] == 1.0
    for other in (Adafactor(parameters()), Adafactor(parameters(), dialect="transformers", **ABSOLUTE)):
        assert other.takes_scheduler
        assert other.takes_rate


def test_takes_a_rate_that_is_a_tensor():
    by_tensor, _ = trained(lambda params: Adafactor(params, lr=torch.tensor(0.02)), steps=2)
    by_number, _ = trained(lambda params: Adafactor(params, lr=0.02), steps=2)
    assert apart(by_tensor, by_number) <= 1e-7


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": -1.0}, "lr = -1.0"),
        ({"eps": (1e-30, -1.0)}, "eps = "),
        ({"weight_decay": -0.1}, "weight_decay = -0.1"),
        ({"beta2_decay": 0.8}, "beta2_decay = 0.8"),
        ({"clip_threshold": 0.0}, "clip_threshold = 0.0"),
        ({**TRANSFORMERS, "beta1": 1.0}, "beta1 = 1.0"),
        ({**TRANSFORMERS, "lr": 1e-3}, "lr = 0.001 with relative_step"),
        ({**TRANSFORMERS, "relative_step": False}, "relative_step = False without lr"),
        ({**TRANSFORMERS, **ABSOLUTE, "warmup_init": True}, "warmup_init with relative_step = False"),
        ({"beta1": 0.9}, "beta1 = 0.9 in the dialect torch"),
        ({"scale_parameter": False}, "scale_parameter = False in the dialect torch"),
        ({"relative_step": False}, "relative_step = False in the dialect torch"),
        ({"warmup_init": True}, "warmup_init = True in the dialect torch"),
        ({"dialect": "fairseq"}, "dialect = fairseq"),
    ],
)
def test_refuses(options, text):
    with pytest.raises(OptimizerError, match=text):
        Adafactor(parameters(), **options)


def test_refuses_a_group_of_the_other_rules():
    with pytest.raises(OptimizerError, match="a parameter group has beta1"):
        Adafactor([{"params": [nn.Parameter(torch.ones(2))], "beta1": 0.9}])

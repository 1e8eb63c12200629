from __future__ import annotations

import pytest
import torch
from torch import nn
from trainkit.optim import OptimizerError
from trainkit.testing import OptimizerConformance
from trainkit.testing.elementwise import ElementwiseConformance
from trainkit_optimizer_gpro.gpro import GPro, capped

GRADIENTS = ([0.1, -0.2, 0.3], [-0.1, -0.1, 0.4])
EXPECTED = ([0.99, -1.99, 2.99], [0.989534089, -1.98055474, 2.980017355])
NORMS = (0.1732, 0.2613)
SHAPES = [(30,), (), (20, 40), (50_000,)]
UNCAPPED = 1e9


class TestGPro(ElementwiseConformance, OptimizerConformance):
    component = "gpro"
    options = {"weight_decay": 0.0}
    learning_rate = 0.1
    state_bytes = 8


def point(values, dtype=torch.float64):
    return nn.Parameter(torch.tensor(values, dtype=dtype))


def tensors():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def run(optimizer, params, steps=50):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def assert_close(ours, theirs):
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=2e-6, atol=1e-6)


def test_published_values():
    p = point([1.0, -2, 3])
    optimizer = GPro([p], lr=0.01)
    seen = []
    lengths = optimizer.lengths
    optimizer.lengths = lambda *arguments: seen.append(float(arguments[-1])) or lengths(*arguments)
    for gradient, expected in zip(GRADIENTS, EXPECTED, strict=True):
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        assert p.tolist() == pytest.approx(expected, abs=1e-9)
    assert seen == pytest.approx(NORMS, abs=1e-4)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("norm", ["l2", "rms"])
def test_without_a_cap_it_is_adam_with_l2_decay_or_adamw(norm, amsgrad):
    for decoupled, reference in ((False, torch.optim.Adam), (True, torch.optim.AdamW)):
        ours, theirs = tensors(), tensors()
        options = {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.9), "amsgrad": amsgrad}
        run(GPro(ours, norm=norm, decoupled=decoupled, projection_factor=UNCAPPED, **options), ours)
        run(reference(theirs, **options), theirs)
        assert_close(ours, theirs)


def test_an_active_cap_spreads_its_norm_over_the_elements():
    p = point([0.0] * 100)
    p.grad = torch.ones(100, dtype=torch.float64)
    GPro([p], lr=0.01, weight_decay=0.0).step()
    assert p.tolist() == pytest.approx([-0.005] * 100, rel=1e-6)


@pytest.mark.parametrize("decoupled", [False, True])
def test_no_tensor_moves_further_than_the_cap(decoupled):
    lr, cap, beta = 0.01, 0.5, 0.9
    params = tensors()
    optimizer = GPro(params, lr=lr, decoupled=decoupled, weight_decay=0.0 if decoupled else 0.01)
    generator = torch.Generator().manual_seed(2)
    reached = 0
    for step in range(1, 13):
        before = [p.detach().clone() for p in params]
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
        bound = lr * cap / (1 - beta**step)
        moved = [float((p.detach() - start).norm()) for p, start in zip(params, before, strict=True)]
        assert max(moved) <= bound * 1.001
        reached += sum(length > bound * 0.999 for length in moved)
    assert reached >= 12


def test_a_large_matrix_moves_a_thousandth_of_what_adam_moves_it():
    ours, theirs = (nn.Parameter(torch.zeros(512, 512)) for _ in range(2))
    for p, optimizer in ((ours, GPro([ours], lr=0.01)), (theirs, torch.optim.Adam([theirs], lr=0.01))):
        for _ in range(200):
            p.grad = torch.ones(512, 512)
            optimizer.step()
    assert 900 < float(theirs.detach().mean() / ours.detach().mean()) < 1100


def test_the_root_mean_square_treats_tensors_of_all_sizes_alike():
    small, large = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(300, 300))
    optimizer = GPro([small, large], lr=0.01, weight_decay=0.0, norm="rms", projection_factor=0.25)
    for _ in range(5):
        before = small.detach().clone()
        small.grad, large.grad = torch.full((4,), 0.3), torch.full((300, 300), -7.0)
        optimizer.step()
        torch.testing.assert_close(before - small.detach(), torch.full((4,), 0.0025), rtol=1e-5, atol=0)
    torch.testing.assert_close(large.detach(), -small.detach()[0].expand(300, 300), rtol=1e-5, atol=0)


@pytest.mark.parametrize("norm", ["l2", "rms"])
def test_the_default_cap_belongs_to_the_norm(norm):
    assert GPro([point([1.0])], norm=norm).defaults["projection_factor"] == {"l2": 0.5, "rms": 1.0}[norm]


def test_the_cap_is_never_a_stretch():
    assert capped(torch.tensor([0.0, 0.5, 2.0]), 1.0).tolist() == [1.0, 1.0, 0.5]


@pytest.mark.parametrize("options", [{"amsgrad": True}, {"norm": "rms", "decoupled": True, "projection_factor": 0.2}])
def test_every_option_follows_the_formula(options):
    ours, plain = tensors(), tensors()
    optimizer = GPro(ours, weight_decay=0.1, **options)
    generators = [torch.Generator().manual_seed(5) for _ in ours]
    moments = [[torch.zeros_like(p) for _ in optimizer.moments] for p in plain]
    for step in range(1, 11):
        for number, (p, q) in enumerate(zip(ours, plain, strict=True)):
            p.grad = torch.randn(p.shape, generator=generators[number])
            numbers = map(torch.tensor, optimizer.coefficients(optimizer.param_groups[0], step))
            direction, *moments[number] = optimizer.formula(q.detach(), p.grad, *moments[number], *numbers)
            size = q.numel() ** 0.5 if optimizer.measure == "rms" else 1.0
            length = optimizer.lengths(optimizer.param_groups[0], step, q.norm(), direction.norm() / size)
            with torch.no_grad():
                q -= length * direction + optimizer.decay(optimizer.param_groups[0]) * q
        optimizer.step()
    assert_close(ours, plain)


def test_amsgrad_keeps_a_third_moment():
    p = point([1.0, 2.0], torch.float32)
    p.grad = torch.ones(2)
    optimizer = GPro([p], amsgrad=True)
    optimizer.step()
    assert sum(value.nbytes for name, value in optimizer.state[p].items() if name != "step") == 2 * 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1e-4}, "GPro: lr = -0.0001"),
        ({"betas": (0.9, 1.0)}, "numbers of at least 0 and below 1"),
        ({"betas": (0.9,)}, "betas takes 2 numbers"),
        ({"eps": -1e-6}, "GPro: eps = -1e-06"),
        ({"weight_decay": -0.1}, "GPro: weight_decay = -0.1"),
        ({"projection_factor": 0.0}, "projection_factor takes a number above 0"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(OptimizerError, match=message):
        GPro([point([1.0])], **options)
    with pytest.raises(OptimizerError, match=message):
        GPro([{"params": [point([1.0])], **options}])


def test_an_unknown_norm_is_refused():
    with pytest.raises(OptimizerError, match="norm takes 'l2' or 'rms'"):
        GPro([point([1.0])], norm="max")

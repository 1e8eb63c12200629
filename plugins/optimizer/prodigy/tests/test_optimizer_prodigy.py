"""Prodigy: its numbers, its estimate over all parameters, its equality with the plain formula, its refusals."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from pytorch_optimizer import Prodigy as Reference
from torch import nn
from trainkit import hookimpl
from trainkit.errors import UsageError
from trainkit.loop import train
from trainkit.optim import OptimizerError
from trainkit.optim.blocks import FlatBlock, ListBlock, WholeBlock
from trainkit.registry import Registry
from trainkit.testing import OptimizerConformance
from trainkit.testing.tiny import tiny_run
from trainkit_optimizer_prodigy.formulas import estimated, gather, move
from trainkit_optimizer_prodigy.prodigy import Prodigy


class TestProdigy(OptimizerConformance):
    component = "prodigy"
    learning_rate = 1.0
    # Steps of the usual first estimate, 1e-6, are too short for bfloat16 to show.
    options = {"d0": 0.001}


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = [(7,), (4, 5), (5, 5), (3,), (2, 3, 4), (210, 200)]
    params = [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]
    return [*params, nn.Parameter(torch.randn(6, 8, generator=generator).to(dtype).t())]


def give_gradients(params, seed):
    """Give gradients with a common direction, so that the estimate grows; they do not depend on the parameters."""
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = (torch.randn(p.shape, generator=generator) + 1).to(p.dtype)


def run(optimizer, params, steps, first=0):
    for step in range(first, first + steps):
        give_gradients(params, step)
        optimizer.step()
    return optimizer


# Along a direction that never ends the estimate would double in each step, and every rounding with it.
BOUNDED = {"d0": 1e-3, "growth_rate": 1.02}


def by_formula(params, steps, *, decay=0.0, sign=1.0):
    """Return where the plain formula comes to with the options BOUNDED, and d."""
    values = [nn.Parameter(p.detach().clone()) for p in params]
    p0 = [p.detach().clone() for p in params]
    states = [[torch.zeros_like(p) for _ in range(3)] for p in p0]
    d = largest = d0 = BOUNDED["d0"]
    group = {"betas": (0.9, 0.999), "weight_decay": decay}
    beta3, num = math.sqrt(0.999), 0.0
    for step in range(steps):
        give_gradients(values, step)
        num *= beta3
        for (s, *_), p, start in zip(states, values, p0, strict=True):
            product, s[:] = gather(p.detach(), sign * p.grad, start, s, beta3, d * d / d0)
            num += d * d / d0 * float(product.double())
        size = sum(float(s.double().abs().sum()) for s, *_ in states)
        old = d
        d, largest = estimated(d, largest, d0, num / size, BOUNDED["growth_rate"])
        for p, (_, m, v) in zip(values, states, strict=True):
            p.data, m[:], v[:] = move(p.detach(), sign * p.grad, m, v, old, old, d * 1e-8, group)
    return [p.detach() for p in values], d


def close(params, expected, tolerance=1e-6):
    for p, value in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), value, rtol=tolerance, atol=tolerance)


def test_published_values():
    point = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = Prodigy([point])
    for step in range(1, 201):
        point.grad = point.detach() - 5
        optimizer.step()
        if step == 10:
            assert float(point.detach()) == pytest.approx(0.0110479, abs=5e-8)
            assert optimizer.param_groups[0]["d"] == pytest.approx(0.00387384, abs=5e-9)
    assert float(point.detach()) == pytest.approx(4.99975, abs=5e-6)
    assert optimizer.param_groups[0]["d"] == pytest.approx(2.65838, abs=5e-6)


@pytest.mark.parametrize("maximize", [False, True])
def test_every_kind_of_block_gives_what_the_formula_gives(maximize):
    params = parameters()
    expected, d = by_formula(params, 50, decay=0.01, sign=-1.0 if maximize else 1.0)
    optimizer = run(Prodigy(params, weight_decay=0.01, maximize=maximize, **BOUNDED), params, 50)
    blocks = [type(block) for layout in optimizer._layouts for block in layout.blocks]
    assert set(blocks) == {FlatBlock, WholeBlock, ListBlock}
    assert d > 2e-3
    # p0 - p is a difference of nearly equal numbers: its roundings weigh more than those of the weights.
    assert optimizer.param_groups[0]["d"] == pytest.approx(d, rel=1e-5)
    close(params, expected)


ALL = {**BOUNDED, "bias_correction": True, "d_coef": 1.7, "beta3": 0.9}


@pytest.mark.parametrize("options", [BOUNDED, ALL], ids=["plain", "all"])
def test_equals_the_one_of_pytorch_optimizer(options):
    params, expected = parameters(), parameters()
    theirs = run(Reference(expected, weight_decay=0.01, **options, foreach=False), expected, 50)
    ours = run(Prodigy(params, weight_decay=0.01, **options), params, 50)
    # Theirs adds the two sums up in single precision.
    assert ours.param_groups[0]["d"] == pytest.approx(float(theirs.param_groups[0]["d"]), rel=1e-5)
    close(params, [p.detach() for p in expected], 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_keeps_full_moments(dtype):
    params = parameters(dtype)
    before = [p.detach().clone() for p in params]
    optimizer = run(Prodigy(params, d0=1e-3), params, 5)
    for p, start in zip(params, before, strict=True):
        assert p.dtype == dtype
        assert not torch.equal(p.detach(), start)
        assert {optimizer.state[p][name].dtype for name in Prodigy.moments} == {torch.float32}
        assert torch.equal(optimizer.state[p]["p0"], start.float())


def test_the_estimate_is_one_for_all_groups_however_they_are_cut():
    together, apart = parameters(), parameters()
    run(Prodigy(together, **BOUNDED), together, 20)
    optimizer = run(Prodigy([{"params": apart[:2]}, {"params": apart[2:]}], **BOUNDED), apart, 20)
    close(apart, [p.detach() for p in together])
    assert len({group["d"] for group in optimizer.param_groups}) == 1


def test_a_rate_is_a_unit():
    """Half the rate for a weight is the whole rate for one that is measured in half the unit."""
    start, goal = (
        torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64),
        torch.tensor([4.0, 1.0, 0.5], dtype=torch.float64),
    )
    own, halved, whole, measured = (nn.Parameter(x) for x in (start.clone(), start.clone(), start.clone(), 2 * start))
    rates = Prodigy([{"params": [own]}, {"params": [halved], "lr": 0.5}], eps=1e-30)
    units = Prodigy([whole, measured], eps=1e-30)
    for _ in range(60):
        own.grad, halved.grad = own.detach() - goal, 3 * (halved.detach() - goal)
        whole.grad, measured.grad = whole.detach() - goal, 0.5 * 3 * (0.5 * measured.detach() - goal)
        rates.step()
        units.step()
    assert rates.param_groups[0]["d"] == pytest.approx(units.param_groups[0]["d"], rel=1e-9)
    torch.testing.assert_close(own, whole)
    torch.testing.assert_close(halved.detach(), 0.5 * measured.detach())
    assert float((halved.detach() - start).abs().min()) > 1e-3


def test_the_estimate_only_grows_and_no_faster_than_asked():
    params = parameters()
    optimizer = Prodigy(params, growth_rate=1.2)
    seen = []
    for step in range(40):
        run(optimizer, params, 1, first=step)
        seen.append(optimizer.param_groups[0]["d"])
    steps = [(a, b) for a, b in pairwise(seen) if a > 1e-6]
    assert all(a <= b <= 1.2 * a * (1 + 1e-12) for a, b in steps)
    assert any(b > 1.19 * a for a, b in steps)
    assert estimated(1e-6, 1e-6, 1e-6, 1e-3, 1.5) == (1e-3, 1e-3)
    assert estimated(2e-6, 2e-6, 1e-6, 1e-3, 1.5) == (3e-6, 1e-3)
    assert estimated(2e-6, 2e-6, 1e-6, -1.0, None) == (2e-6, 2e-6)


def test_gradients_of_zero_leave_the_estimate_and_decay_the_weights():
    point = nn.Parameter(torch.ones(3))
    optimizer = Prodigy([point], d0=0.1, weight_decay=0.5)
    point.grad = torch.zeros(3)
    optimizer.step()
    assert optimizer.param_groups[0]["d"] == 0.1
    torch.testing.assert_close(point.detach(), torch.full((3,), 0.95))


def test_a_distance_without_end_is_told():
    point = nn.Parameter(torch.zeros(3))
    optimizer = Prodigy([point])
    optimizer.param_groups[0]["d"] = 1e18
    point.grad = torch.ones(3)
    with pytest.raises(OptimizerError, match=r"has grown to d = 1e\+18[\s\S]*optimizer.growth_rate"):
        optimizer.step()
    assert torch.equal(point.detach(), torch.zeros(3))


def test_without_any_gradient_nothing_happens():
    point = nn.Parameter(torch.ones(3))
    optimizer = Prodigy([point])
    optimizer.step()
    assert not optimizer.state[point]
    assert optimizer.param_groups[0]["d"] == 1e-6


def test_resumes_to_the_bit():
    straight, cut = parameters(), parameters()
    run(Prodigy(straight), straight, 20)
    first = run(Prodigy(cut), cut, 12)
    fresh = [nn.Parameter(p.detach().clone()) for p in cut]
    second = Prodigy(fresh)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(second, fresh, 8, first=12)
    close(fresh, [p.detach() for p in straight], 0)
    assert second.param_groups[0]["d"] > 1e-6


def test_a_late_parameter_has_a_bias_correction_of_its_own():
    early, late = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(5))
    optimizer = Prodigy([early, late], d0=0.01, bias_correction=True)
    run(optimizer, [early], 5)
    d = optimizer.param_groups[0]["d"]
    early.grad, late.grad = torch.zeros(4), torch.ones(5)
    optimizer.step()
    assert int(optimizer.state[late]["step"]) == 1
    # Adam's first step with bias correction is of length d.
    torch.testing.assert_close(late.detach(), torch.full((5,), 1 - d))


def test_a_group_added_later_takes_the_estimate_over():
    params = parameters()
    optimizer = run(Prodigy(params[:3]), params[:3], 10)
    optimizer.add_param_group({"params": params[3:]})
    assert optimizer.param_groups[1]["d"] == optimizer.param_groups[0]["d"] > 1e-6


def test_state_takes_sixteen_bytes_for_each_parameter():
    params = parameters()
    optimizer = run(Prodigy(params), params, 1)
    tensors = [t for state in optimizer.state.values() for t in state.values() if t.ndim]
    assert sum(t.numel() * t.element_size() for t in tensors) == 16 * sum(p.numel() for p in params)


def test_a_schedule_multiplies_what_is_found_and_a_run_logs_it():
    rates, found = [], []

    class Hear:
        @hookimpl
        def on_log(self, run, row):
            rates.extend([row["train/learning_rate"]] if "train/d" in row else [])
            found.extend([row["train/d"]] if "train/d" in row else [])

    train(tiny_run({"optimizer": "prodigy", "scheduler": "cosine", "loop.epochs": 20}, callbacks=[Hear()]))
    assert Prodigy.takes_scheduler
    assert not Prodigy.takes_rate
    assert max(rates) > 0.9
    assert min(rates) < 0.1
    assert found == sorted(found)
    assert found[-1] > 1e-4


BAD = [
    {"lr": -1.0},
    {"betas": (0.9, 1.0)},
    {"beta3": 1.0},
    {"eps": 0.0},
    {"weight_decay": -0.1},
    {"d0": 0.0},
    {"d_coef": 0.0},
    {"growth_rate": 0.5},
]


@pytest.mark.parametrize("options", BAD, ids=str)
def test_hyper_parameters_out_of_range_are_refused(options):
    (key,) = options
    with pytest.raises(OptimizerError, match=f"Prodigy: {key}"):
        Prodigy(parameters(), **options)
    component = Registry().load("optimizer", "prodigy")
    with pytest.raises(UsageError, match=f"optimizer.{key}"):
        component.validate(dict(options))


@pytest.mark.parametrize("key", ["d0", "d_coef", "growth_rate", "beta3"])
def test_groups_that_contradict_each_other_about_the_estimate_are_refused(key):
    params = parameters()
    value = 1.5 if key == "growth_rate" else 0.5
    with pytest.raises(OptimizerError, match=rf"Prodigy: {key} = [\s\S]*one estimate for all groups"):
        Prodigy([{"params": params[:1], key: value}, {"params": params[1:]}])


def test_a_tensor_is_taken_as_rate():
    params, expected = parameters(), parameters()
    run(Prodigy(params, lr=torch.tensor(0.5)), params, 3)
    run(Prodigy(expected, lr=0.5), expected, 3)
    close(params, [p.detach() for p in expected])

"""The step of Sophia: its numbers, its equality with the plain formula, its refusals."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from pytorch_optimizer import SophiaH
from torch import nn
from trainkit.component import Component
from trainkit.errors import UsageError
from trainkit.optim import OptimizerError
from trainkit.optim.blocks import FlatBlock, ListBlock, WholeBlock
from trainkit.registry import Registry
from trainkit.testing import OptimizerConformance
from trainkit.testing.elementwise import ElementwiseConformance
from trainkit_optimizer_sophia.curvature import hutchinson
from trainkit_optimizer_sophia.sophia import Sophia, sophia

GRADIENTS = ([0.1, -0.2, 0.3], [-0.1, -0.1, 0.4])
AFTER_ONE = [0.989, -1.988, 2.987]
AFTER_TWO = [0.989236, -1.976012, 2.974013]


class TestSophia(ElementwiseConformance, OptimizerConformance):
    component = "sophia"
    learning_rate = 0.02
    state_bytes = 8

    def update(self, optimizer, objective):
        optimizer.zero_grad()
        objective().backward()
        optimizer.step()
        if optimizer.curvature_due:
            objective_again = objective()
            generator = torch.Generator().manual_seed(optimizer.param_groups[0]["updates"])
            optimizer.update_curvature(hutchinson(objective_again, optimizer.curved(), generator=generator))


def parameters():
    generator = torch.Generator().manual_seed(0)
    shapes = [(7,), (4, 5), (5, 5), (3,), (2, 3, 4), (210, 200)]
    params = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    return [*params, nn.Parameter(torch.randn(6, 8, generator=generator).t())]


def gradients(params, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=generator) for p in params]


def give(params, values):
    for p, value in zip(params, values, strict=True):
        p.grad = value


def curvature_like(params):
    """Return curvatures with which some steps are clipped and some are not.

    Their sign does not change: where it does, a rounding decides about the direction of a step.
    """
    return [1000 * value.abs() + 1000 for value in gradients(params, 99)]


def by_formula(params, steps, **options):
    """Return where the plain formula comes to, and the curvature given after the first step."""
    group = Sophia(params, **options).param_groups[0]
    sign = -1 if group["maximize"] else 1
    values = [p.detach().clone() for p in params]
    states = [(torch.zeros_like(p), torch.zeros_like(p)) for p in values]
    lr, (beta1, beta2) = group["lr"], group["betas"]
    numbers = [torch.tensor(x) for x in (lr, 1 - beta1, group["gamma"], group["eps"], 1 - lr * group["weight_decay"])]
    for step in range(steps):
        for i, g in enumerate(gradients(params, step)):
            values[i], *state = sophia(values[i], sign * g, *states[i], *numbers)
            states[i] = tuple(state)
        if step == 0:
            states = [(m, (1 - beta2) * h) for (m, _), h in zip(states, curvature_like(params), strict=True)]
    return values


def stepped(params, steps, **options):
    optimizer = Sophia(params, **options)
    for step in range(steps):
        give(params, gradients(params, step))
        optimizer.step()
        if step == 0:
            sign = -1 if optimizer.param_groups[0]["maximize"] else 1
            optimizer.update_curvature([sign * h for h in curvature_like(params)])
    return optimizer


def close(params, expected, tolerance=1e-6):
    for p, value in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), value, rtol=tolerance, atol=tolerance)


def test_published_values():
    point = nn.Parameter(torch.tensor([1.0, -2, 3], dtype=torch.float64))
    optimizer = Sophia([point], lr=0.01, betas=(0.965, 0.99), gamma=0.01, weight_decay=0.1)
    for gradient, expected in zip(GRADIENTS, (AFTER_ONE, AFTER_TWO), strict=True):
        point.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        assert point.tolist() == pytest.approx(expected, abs=1e-9)
        if optimizer.curvature_due:
            optimizer.update_curvature([torch.tensor([10, 0.5, 1e-6], dtype=torch.float64)])


@pytest.mark.parametrize("maximize", [False, True])
def test_every_kind_of_block_gives_what_the_formula_gives_with_a_curvature(maximize):
    params = parameters()
    expected = by_formula(params, 50, maximize=maximize)
    optimizer = stepped(params, 50, maximize=maximize)
    blocks = [type(block) for layout in optimizer._layouts for block in layout.blocks]
    assert set(blocks) == {FlatBlock, WholeBlock, ListBlock}
    assert 0 < float(optimizer.win_rate()) < 1
    close(params, expected)


def test_a_step_is_never_longer_than_the_rate():
    params = parameters()
    optimizer = stepped(params, 3, lr=0.01, weight_decay=0.0)
    before = [p.detach().clone() for p in params]
    give(params, gradients(params, 7))
    optimizer.step()
    steps = [(p.detach() - b).abs() for p, b in zip(params, before, strict=True)]
    assert all(float(step.max()) <= 0.01 * (1 + 1e-4) for step in steps)
    assert all(float(step.min()) < 0.009 for step in steps[-2:])


def test_the_curvature_stays_between_estimates():
    params = parameters()
    optimizer = stepped(params, 1)
    before = [optimizer.state[p]["hessian"].clone() for p in params]
    give(params, gradients(params, 1))
    optimizer.step()
    assert all(torch.equal(optimizer.state[p]["hessian"], h) for p, h in zip(params, before, strict=True))


def test_an_estimate_is_due_after_the_first_step_and_every_few():
    params = parameters()
    optimizer = Sophia(params, every=3)
    assert not optimizer.curvature_due
    due = []
    for step in range(1, 9):
        give(params, gradients(params, step))
        optimizer.step()
        due += [step] if optimizer.curvature_due else []
    assert due == [1, 4, 7]


def test_a_resumed_optimizer_asks_for_the_same_estimates():
    params = parameters()
    optimizer = stepped(params, 5, every=4)
    fresh = Sophia([nn.Parameter(p.detach().clone()) for p in params], every=4)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    due = []
    for step in range(6, 14):
        give(fresh.param_groups[0]["params"], gradients(params, step))
        fresh.step()
        due += [step] if fresh.curvature_due else []
    assert due == [9, 13]


def test_where_the_curvature_is_unknown_or_negative_a_step_is_of_full_length():
    point = nn.Parameter(torch.zeros(4))
    optimizer = Sophia([point], lr=0.1, weight_decay=0.0, betas=(0.0, 0.0), gamma=1.0)
    point.grad = torch.tensor([1e-6, 1e-6, 1e-6, 0.0])
    optimizer.step()
    torch.testing.assert_close(point.detach(), torch.tensor([-0.1, -0.1, -0.1, 0.0]))
    optimizer.update_curvature([torch.tensor([-1.0, 0.0, 1.0, 0.0])])
    optimizer.step()
    torch.testing.assert_close(point.detach(), torch.tensor([-0.2, -0.2, -0.1 - 1e-7, 0.0]))


def test_equals_the_one_of_pytorch_optimizer():
    """Theirs clips to `p` where ours divides by gamma and clips to 1: the same with p = gamma and a rate / gamma."""
    params, expected = parameters(), parameters()
    theirs = SophiaH(expected, lr=1e-3 / 0.01, betas=(0.96, 0.99), p=0.01, update_period=10**9, foreach=False)
    ours = Sophia(params, lr=1e-3, weight_decay=0.0)
    # Theirs takes an estimate in the step after the one in which ours does. Of zeros it takes nothing.
    waiting = [torch.zeros_like(p) for p in params]
    for step in range(50):
        give(params, gradients(params, step))
        give(expected, gradients(params, step))
        theirs.step(hessian=waiting)
        ours.step()
        waiting = curvature_like(params) if ours.curvature_due else None
        if waiting:
            ours.update_curvature(waiting)
    close(params, [p.detach() for p in expected])


def test_a_late_parameter_begins_with_an_unknown_curvature():
    early, late = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(5))
    optimizer = Sophia([early, late], weight_decay=0.0, lr=0.1)
    give([early], [torch.ones(4)])
    optimizer.step()
    assert [id(p) for p in optimizer.curved()] == [id(early)]
    optimizer.update_curvature([torch.ones(4)])
    give([early, late], [torch.ones(4), torch.ones(5)])
    optimizer.step()
    assert torch.equal(optimizer.state[late]["hessian"], torch.zeros(5))
    assert int(optimizer.state[late]["step"]) == 1
    torch.testing.assert_close(late.detach(), torch.full((5,), 0.9))


def test_the_win_rate_is_the_share_that_is_not_clipped():
    point = nn.Parameter(torch.zeros(4))
    optimizer = Sophia([point], betas=(0.0, 0.0), gamma=1.0)
    assert float(optimizer.win_rate()) == 0
    point.grad = torch.tensor([1.0, -1.0, 3.0, 3.0])
    optimizer.step()
    optimizer.update_curvature([torch.tensor([2.0, 2.0, 2.0, -9.0])])
    assert float(optimizer.win_rate()) == 0.5


def test_defaults_follow_the_estimator():
    options = {name: Sophia(parameters(), estimator=name).defaults for name in ("hutchinson", "gauss-newton-bartlett")}
    assert [(o["betas"], o["gamma"]) for o in options.values()] == [((0.96, 0.99), 0.01), ((0.965, 0.99), 0.05)]


def test_estimates_of_other_shapes_are_refused():
    params = parameters()
    optimizer = stepped(params, 1)
    with pytest.raises(OptimizerError, match=r"6 estimates do not match the 7 parameters of curved\(\)"):
        optimizer.update_curvature(curvature_like(params)[:-1])


def test_the_curvature_of_sharded_parameters_is_refused():
    """A distributed tensor is known by its method `full_tensor`."""
    params = parameters()[:1]
    optimizer = stepped(params, 1)
    params[0].full_tensor = params[0].detach
    with pytest.raises(OptimizerError, match=r"no curvature of sharded parameters[\s\S]*DDP"):
        optimizer.curved()


RANK = """
import sys, torch
from torch import nn
from trainkit_optimizer_sophia.sophia import Sophia
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
point = nn.Parameter(torch.zeros(2))
optimizer = Sophia([point], betas=(0.9, 0.0))
point.grad = torch.ones(2)
optimizer.step()
optimizer.update_curvature([torch.tensor([1.0, 10.0]) * (rank + 1)])
print(optimizer.state[point]["hessian"].tolist())
torch.distributed.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo")
def test_estimates_are_averaged_over_ranks(tmp_path):
    command = [sys.executable, "-c", RANK]
    ranks = [
        subprocess.Popen([*command, str(r), tmp_path / "store"], stdout=subprocess.PIPE, text=True) for r in (0, 1)
    ]
    assert [rank.communicate(timeout=100)[0].strip() for rank in ranks] == ["[1.5, 15.0]"] * 2


BAD = [
    {"lr": -1.0},
    {"betas": (0.9, 1.0)},
    {"gamma": 0.0},
    {"eps": 0.0},
    {"weight_decay": -0.1},
    {"estimator": "adam"},
    {"every": 0},
    {"samples": 0},
]


@pytest.mark.parametrize("options", BAD, ids=lambda options: next(iter(options)))
def test_hyper_parameters_out_of_range_are_refused(options):
    (key,) = options
    with pytest.raises(OptimizerError, match=f"Sophia: {key}"):
        Sophia(parameters(), **options)
    component: Component = Registry().load("optimizer", "sophia")
    with pytest.raises(UsageError, match=f"optimizer.{key}"):
        component.validate(dict(options))


def test_a_group_is_checked_too():
    with pytest.raises(OptimizerError, match=r"Sophia: gamma = 0\.0\s+why: +gamma divides"):
        Sophia([{"params": parameters(), "gamma": 0.0}])

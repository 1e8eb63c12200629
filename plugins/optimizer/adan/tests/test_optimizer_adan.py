from __future__ import annotations

import copy

import pytest
import pytorch_optimizer
import torch
from torch import nn
from trainkit.errors import UsageError
from trainkit.optim import OptimizerError
from trainkit.registry import Registry
from trainkit.testing import OptimizerConformance
from trainkit.testing.elementwise import ElementwiseConformance
from trainkit_optimizer_adan.adan import Adan

GRADIENTS = ([0.1, -0.2, 0.3], [-0.1, -0.1, 0.4])
EXPECTED = ([0.98901099, -1.988011989, 2.987012987], [0.992558246, -1.978838178, 2.974272013])
SHAPES = [(30,), (7,), (20, 40), (50_000,)]


class TestAdan(ElementwiseConformance, OptimizerConformance):
    component = "adan"
    learning_rate = 0.1
    state_bytes = 16


def point(values, dtype=torch.float64):
    return nn.Parameter(torch.tensor(values, dtype=dtype))


def tensors():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def give_gradients(params, step):
    generator = torch.Generator().manual_seed(step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)


def run(optimizer, params, steps):
    for step in steps:
        give_gradients(params, step)
        optimizer.step()


def assert_equal(ours, theirs):
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)


def test_published_values():
    p = point([1.0, -2, 3])
    optimizer = Adan([p], lr=0.01, weight_decay=0.1)
    for gradient, expected in zip(GRADIENTS, EXPECTED, strict=True):
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        assert p.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("no_prox", [False, True])
def test_moves_as_the_reference_library_does(no_prox):
    ours, theirs = tensors(), tensors()
    options = {"lr": 1e-2, "betas": (0.97, 0.9, 0.98), "weight_decay": 0.1}
    run(Adan(ours, no_prox=no_prox, **options), ours, range(50))
    # That library turns the gradients it is given; they are drawn anew for each of the two.
    run(pytorch_optimizer.Adan(theirs, weight_decouple=no_prox, **options), theirs, range(50))
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=2e-6, atol=1e-6)


def test_a_first_step_knows_no_difference():
    p = point([1.0, 2.0])
    optimizer = Adan([p])
    p.grad = torch.tensor([5.0, -3.0], dtype=torch.float64)
    optimizer.step()
    state = optimizer.state[p]
    assert state["exp_avg_diff"].tolist() == [0.0, 0.0]
    assert state["prev_grad"].tolist() == p.grad.tolist() == [5.0, -3.0]


def test_a_resume_without_the_previous_gradient_would_differ():
    whole, cut = tensors(), tensors()
    optimizer = Adan(whole)
    run(optimizer, whole, range(5))
    state = copy.deepcopy(optimizer.state_dict())
    for one in state["state"].values():
        one["prev_grad"].zero_()
    cut = [nn.Parameter(p.detach().clone()) for p in whole]
    other = Adan(cut)
    other.load_state_dict(state)
    run(optimizer, whole, [5])
    run(other, cut, [5])
    assert not any(torch.equal(p, q) for p, q in zip(whole, cut, strict=True))


def test_a_manual_restart_makes_the_next_step_a_first_one():
    params = tensors()
    optimizer = Adan(params, lr=0.1, restart="manual")
    run(optimizer, params, range(4))
    fresh = [nn.Parameter(p.detach().clone()) for p in params]
    optimizer.restart()
    assert all(not value.any() for state in optimizer.state.values() for value in state.values())
    run(optimizer, params, range(4, 7))
    run(Adan(fresh, lr=0.1), fresh, range(4, 7))
    assert_equal(params, fresh)
    assert {int(state["step"]) for state in optimizer.state.values()} == {3}


def test_a_restart_directly_after_a_resume():
    params = tensors()
    optimizer = Adan(params, restart="manual")
    run(optimizer, params, range(3))
    resumed, fresh = ([nn.Parameter(p.detach().clone()) for p in params] for _ in range(2))
    second = Adan(resumed, restart="manual")
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    second.restart()
    run(second, resumed, range(3, 5))
    run(Adan(fresh), fresh, range(3, 5))
    assert_equal(resumed, fresh)


def test_a_restart_that_was_not_asked_for_is_refused():
    with pytest.raises(OptimizerError, match=r"restart=None[\s\S]*restart='manual'"):
        Adan([point([1.0])]).restart()


def test_it_restarts_after_every_so_many_steps():
    ours, theirs = tensors(), tensors()
    manual = Adan(theirs, lr=0.1, restart="manual")
    run(Adan(ours, lr=0.1, restart={"every": 3}), ours, range(8))
    for first in (0, 3, 6):
        run(manual, theirs, range(first, min(first + 3, 8)))
        manual.restart()
    assert_equal(ours, theirs)


def test_it_restarts_where_the_steps_have_left_the_radius():
    lr, beta = 0.1, 0.99
    p = point([1.0, -1.0])
    optimizer = Adan([p], lr=lr, restart={"radius": 0.25})
    total, restarts, k, averages = 0.0, [], 0, torch.zeros(2, dtype=torch.float64)
    previous = None
    for step in range(12):
        before = p.detach().clone()
        p.grad = torch.tensor([1.0, 0.5 - 0.1 * step], dtype=torch.float64)
        optimizer.step()
        difference = torch.zeros_like(p) if previous is None else p.grad - previous
        averages = beta * averages + (1 - beta) * (p.grad + 0.92 * difference) ** 2
        previous, k = p.grad.clone(), k + 1
        total += float(((p.detach() - before) ** 2 * (averages / (1 - beta**k)).sqrt()).sum())
        restarted = int(optimizer.state[p]["step"]) == 0
        assert restarted == (k * total > 0.25**2)
        if restarted:
            restarts.append(step)
            total, k, averages, previous = 0.0, 0, torch.zeros(2, dtype=torch.float64), None
    assert len(restarts) >= 2
    assert restarts[0] > 0


def test_the_radius_is_that_of_all_groups_together():
    def steps_until_a_restart(groups):
        optimizer = Adan(groups, lr=0.1, restart={"radius": 0.5})
        for step in range(1, 50):
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.grad = torch.ones_like(p)
            optimizer.step()
            if not any(int(state["step"]) for state in optimizer.state.values()):
                return step
        return 0

    apart = steps_until_a_restart([{"params": [point([0.0])]}, {"params": [point([0.0, 0.0])]}])
    assert apart == steps_until_a_restart([point([0.0] * 3)])
    assert 1 < apart < steps_until_a_restart([point([0.0])])


@pytest.mark.parametrize("restart", [{"every": 5}, {"radius": 7.0}])
def test_restarts_go_on_as_they_were_after_a_resume(restart):
    straight, cut = tensors(), tensors()
    whole = Adan(straight, lr=0.01, restart=restart)
    counts = []
    for step in range(10):
        run(whole, straight, [step])
        counts.append(int(whole.state[straight[0]]["step"]))
    assert 0 in counts[4:], "nothing restarted after the cut"
    assert counts[3], "the cut is to fall between two restarts"
    first = Adan(cut, lr=0.01, restart=restart)
    run(first, cut, range(4))
    resumed = [nn.Parameter(p.detach().clone()) for p in cut]
    second = Adan(resumed, lr=0.01, restart=restart)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(second, resumed, range(4, 10))
    assert_equal(straight, resumed)


def test_measuring_the_radius_changes_no_step():
    ours, theirs = tensors(), tensors()
    run(Adan(ours, restart={"radius": 1e9}), ours, range(3))
    run(Adan(theirs), theirs, range(3))
    assert_equal(ours, theirs)


def test_restarts_are_read_from_a_config():
    component = Registry().load("optimizer", "adan")
    for given, expected in ({"restart.every": 5}, {"every": 5}), ({"restart": "manual"}, "manual"):
        assert component.validate(given)["restart"] == expected


@pytest.mark.parametrize(
    "restart", ["often", {}, {"every": 0}, {"every": 2.5}, {"radius": -1.0}, {"after": 3}, {"every": 2, "radius": 1.0}]
)
def test_an_unknown_restart_is_refused(restart):
    with pytest.raises(OptimizerError, match="it takes none, 'manual'"):
        Adan([point([1.0])], restart=restart)
    with pytest.raises(UsageError, match=r"optimizer\.restart[\s\S]*it takes none, 'manual', \{every = N\}"):
        Registry().load("optimizer", "adan").validate({"restart": restart})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1e-4}, "Adan: lr = -0.0001"),
        ({"betas": (0.9, 0.9, 1.0)}, "numbers of at least 0 and below 1"),
        ({"betas": (0.9, 0.99)}, "betas takes 3 numbers"),
        ({"eps": -1e-6}, "Adan: eps = -1e-06"),
        ({"weight_decay": -0.1}, "Adan: weight_decay = -0.1"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(OptimizerError, match=message):
        Adan([point([1.0])], **options)
    with pytest.raises(OptimizerError, match=message):
        Adan([{"params": [point([1.0])], **options}])

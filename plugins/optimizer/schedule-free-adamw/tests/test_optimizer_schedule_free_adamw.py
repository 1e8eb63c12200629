"""Schedule-free AdamW: its numbers, its two modes, its equality with the plain formula, its refusals."""

from __future__ import annotations

import copy

import pytest
import torch
from pytorch_optimizer import ScheduleFreeAdamW as Reference
from torch import nn
from trainkit.errors import UsageError
from trainkit.optim import OptimizerError
from trainkit.optim.blocks import FlatBlock, ListBlock, WholeBlock
from trainkit.registry import Registry
from trainkit.testing import OptimizerConformance
from trainkit.testing.elementwise import ElementwiseConformance
from trainkit_optimizer_schedule_free_adamw.averaging import Averaging, step_weight
from trainkit_optimizer_schedule_free_adamw.schedule_free_adamw import ScheduleFreeAdamW, schedule_free_adamw

GRADIENTS = ([0.1, -0.2, 0.3], [-0.1, -0.1, 0.4])
X = [0.995, -1.986837248, 2.984343542]
Y = [0.9955, -1.986520973, 2.983777897]
Z = [1, -1.983674496, 2.978687084]


class TestScheduleFreeAdamW(ElementwiseConformance, OptimizerConformance):
    component = "schedule-free-adamw"
    learning_rate = 0.1
    state_bytes = 8


def parameters():
    generator = torch.Generator().manual_seed(0)
    shapes = [(7,), (4, 5), (5, 5), (3,), (2, 3, 4), (210, 200)]
    params = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    return [*params, nn.Parameter(torch.randn(6, 8, generator=generator).t())]


def give_gradients(params, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


def run(optimizer, params, steps, first=0):
    for step in range(first, first + steps):
        give_gradients(params, step)
        optimizer.step()
    return optimizer


def by_formula(params, steps, **options):
    """Return y, z and x after some steps of the plain formula."""
    optimizer = ScheduleFreeAdamW(params, **options)
    (group,) = optimizer.param_groups
    rows = [(p.detach().clone(), p.detach().clone(), torch.zeros_like(p)) for p in params]
    shadow = [nn.Parameter(torch.empty_like(p)) for p in params]
    for step in range(steps):
        give_gradients(shadow, step)
        numbers = [torch.tensor(number) for number in optimizer.coefficients(group, step + 1)]
        sign = -1 if group["maximize"] else 1
        rows = [
            schedule_free_adamw(y, sign * q.grad, z, v, *numbers) for (y, z, v), q in zip(rows, shadow, strict=True)
        ]
    beta1 = group["betas"][0]
    return [row[0] for row in rows], [row[1] for row in rows], [(y - (1 - beta1) * z) / beta1 for y, z, _ in rows]


def close(params, expected, tolerance=1e-6):
    for p, value in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), value, rtol=tolerance, atol=tolerance)


def test_published_values():
    point = nn.Parameter(torch.tensor([1.0, -2, 3], dtype=torch.float64))
    optimizer = ScheduleFreeAdamW([point], lr=0.01)
    for gradient in GRADIENTS:
        point.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    assert point.tolist() == pytest.approx(Y, abs=1e-9)
    assert optimizer.state[point]["z"].tolist() == pytest.approx(Z, abs=1e-9)
    optimizer.eval()
    assert point.tolist() == pytest.approx(X, abs=1e-9)


OPTIONS = [{}, {"weight_decay": 0.1, "maximize": True}, {"warmup": 20, "r": 1.5, "weight_decay": 0.1}]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "maximize", "warm-up"])
def test_every_kind_of_block_gives_what_the_formula_gives(options):
    params = parameters()
    y, z, x = by_formula(params, 50, **options)
    optimizer = run(ScheduleFreeAdamW(params, **options), params, 50)
    blocks = [type(block) for layout in optimizer._layouts for block in layout.blocks]
    assert set(blocks) == {FlatBlock, WholeBlock, ListBlock}
    close(params, y)
    close([optimizer.state[p]["z"] for p in params], z)
    optimizer.eval()
    close(params, x)


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "maximize", "warm-up"])
def test_equals_the_one_of_pytorch_optimizer(options):
    params, expected = parameters(), parameters()
    names = {"warmup": "warmup_steps"}
    theirs = Reference(expected, **{names.get(key, key): value for key, value in options.items()}, foreach=False)
    run(theirs, expected, 50)
    optimizer = run(ScheduleFreeAdamW(params, **options), params, 50)
    close(params, [p.detach() for p in expected])
    optimizer.eval()
    theirs.eval()
    close(params, [p.detach() for p in expected])


def test_the_average_is_the_weighted_mean_of_the_fast_weights():
    point = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = ScheduleFreeAdamW([point], lr=0.1, warmup=4, r=2.0)
    seen, weights = [], []
    for step in range(1, 11):
        give_gradients([point], step)
        optimizer.step()
        seen.append(optimizer.state[point]["z"].clone())
        weights.append(step_weight(step, 4, 2.0))
    mean = sum(w * z for w, z in zip(weights, seen, strict=True)) / sum(weights)
    optimizer.eval()
    torch.testing.assert_close(point.detach(), mean)


def test_evaluation_changes_no_bit_of_the_training():
    """x follows from y and back by rounding twice; the weights are kept instead."""
    straight, looked_at = parameters(), parameters()
    run(ScheduleFreeAdamW(straight), straight, 6)
    optimizer = ScheduleFreeAdamW(looked_at)
    for step in range(6):
        run(optimizer, looked_at, 1, first=step)
        before = [p.detach().clone() for p in looked_at]
        optimizer.eval()
        optimizer.eval()
        assert step == 0 or not all(torch.equal(p.detach(), b) for p, b in zip(looked_at, before, strict=True))
        optimizer.train()
        optimizer.train()
        close(looked_at, before, 0)
    close(looked_at, [p.detach() for p in straight], 0)


def test_a_step_in_evaluation_mode_is_refused():
    params = parameters()
    optimizer = run(ScheduleFreeAdamW(params), params, 1)
    optimizer.eval()
    give_gradients(params, 1)
    with pytest.raises(OptimizerError, match=r"a step in evaluation mode[\s\S]*optimizer.train\(\)"):
        optimizer.step()
    optimizer.train()
    optimizer.step()


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_state_of_either_mode_resumes_to_the_bit(mode):
    straight, cut = parameters(), parameters()
    run(ScheduleFreeAdamW(straight, warmup=3), straight, 10)
    first = run(ScheduleFreeAdamW(cut, warmup=3), cut, 5)
    getattr(first, mode)()
    fresh = [nn.Parameter(p.detach().clone()) for p in cut]
    second = ScheduleFreeAdamW(fresh, warmup=3)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.param_groups[0]["training"] is (mode == "train")
    second.train()
    run(second, fresh, 5, first=5)
    close(fresh, [p.detach() for p in straight], 0)


def test_a_late_parameter_begins_an_average_of_its_own():
    early, late, alone = (nn.Parameter(torch.ones(4)) for _ in range(3))
    optimizer, reference = ScheduleFreeAdamW([early, late], warmup=5), ScheduleFreeAdamW([alone], warmup=5)
    run(optimizer, [early], 7)
    for step in range(7, 12):
        give_gradients([alone], step)
        late.grad, early.grad = alone.grad.clone(), torch.zeros(4)
        optimizer.step()
        reference.step()
    assert torch.equal(late, alone)
    optimizer.eval()
    reference.eval()
    assert torch.equal(late, alone)


def test_a_group_added_in_evaluation_mode_is_in_it():
    params = parameters()
    optimizer = ScheduleFreeAdamW(params[:1])
    optimizer.eval()
    optimizer.add_param_group({"params": params[1:]})
    assert [group["training"] for group in optimizer.param_groups] == [False, False]
    optimizer.train()
    run(optimizer, params, 1)


def test_shares_do_not_depend_on_who_asks():
    straight = [Averaging(5, 1.5).share(step) for step in range(1, 40)]
    one = Averaging(5, 1.5)
    shared = [(one.share(step), one.share(step + 7)) for step in range(1, 33)]
    assert [pair[0] for pair in shared] == straight[:32]
    assert [pair[1] for pair in shared] == straight[7:]
    assert len(one._totals) < 5
    assert [Averaging(0, 0.0).share(step) for step in (1, 2, 4)] == [1, 0.5, 0.25]


def test_weights_are_held_while_evaluation_lasts():
    params = parameters()
    optimizer = run(ScheduleFreeAdamW(params), params, 1)
    optimizer.eval()
    assert [optimizer.state[p]["y"].nbytes for p in params] == [p.nbytes for p in params]
    optimizer.train()
    assert not any("y" in state for state in optimizer.state.values())


def test_takes_no_scheduler_and_no_range_test():
    assert not ScheduleFreeAdamW.takes_scheduler
    assert not ScheduleFreeAdamW.takes_rate


BAD = [
    {"lr": -1.0},
    {"betas": (0.0, 0.999)},
    {"betas": (0.9, 1.0)},
    {"eps": 0.0},
    {"weight_decay": -0.1},
    {"warmup": -1},
    {"r": -1.0},
]


@pytest.mark.parametrize("options", BAD, ids=str)
def test_hyper_parameters_out_of_range_are_refused(options):
    (key,) = options
    with pytest.raises(OptimizerError, match=f"ScheduleFreeAdamW: {key}"):
        ScheduleFreeAdamW(parameters(), **options)
    component = Registry().load("optimizer", "schedule-free-adamw")
    with pytest.raises(UsageError, match=f"optimizer.{key}"):
        component.validate(dict(options))

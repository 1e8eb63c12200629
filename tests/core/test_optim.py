"""The machinery of optimizers: blocks, layouts, precision, state, refusals. The optimizers here are the simplest."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from trainkit.optim import ElementwiseOptimizer, OptimizerError, ScaledOptimizer
from trainkit.optim.blocks import FlatBlock, ListBlock, WholeBlock
from trainkit.optim.norms import full_norms

LARGE = 70_001


def momentum(p, g, velocity, lr, beta):
    velocity = beta * velocity + g
    return p - lr * velocity, velocity


class Momentum(ElementwiseOptimizer):
    """Step along a running sum of gradients."""

    moments = ("velocity",)
    formula = staticmethod(momentum)

    def __init__(self, params, lr=0.1, beta=0.5, *, maximize=False, compiled=False):
        super().__init__(params, {"lr": lr, "beta": beta}, maximize=maximize, compiled=compiled)

    def coefficients(self, group, step):
        # A step that is divided by its number shows whose counter is used.
        return group["lr"] / step, group["beta"]

    def update(self, ops, p, g, moments, work, lr, beta):
        ops.mul_(moments[0], beta)
        ops.add_(moments[0], g)
        ops.add_(p, moments[0], alpha=-lr)


def kept_direction(p, g, velocity, beta):
    velocity = beta * velocity + g
    return velocity + 0.1 * p, velocity


class Normed(ScaledOptimizer):
    """Step each tensor by a length that its norm gives."""

    moments = ("velocity",)
    formula = staticmethod(kept_direction)

    def __init__(self, params, lr=0.1, *, maximize=False, compiled=False):
        super().__init__(params, {"lr": lr}, maximize=maximize, compiled=compiled)

    def coefficients(self, group, step):
        return (0.5,)

    def direction(self, ops, out, p, g, moments, work, beta):
        ops.mul_(moments[0], beta)
        ops.add_(moments[0], g)
        return ops.add(moments[0], p, alpha=0.1, out=out)

    def lengths(self, group, step, weights, directions):
        return group["lr"] * weights / directions


SHAPES = [(3,), (4, 5), (5,), (4, 6), (7, 5), (), (2, 3, 4), (1,), (9,), (LARGE,), (300, 300), (6, 5), (8, 5)]


def parameters(dtype: torch.dtype = torch.float32, shapes=SHAPES) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def give_gradients(params, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def run(optimizer, params, steps: int, first: int = 0) -> None:
    for number in range(first, first + steps):
        give_gradients(params, number)
        optimizer.step()


def plain(params, steps: int, *, sign: float = 1.0):
    """Return what the formula of Momentum gives, in full precision with one rounding a step."""
    result = []
    for number, p in enumerate(params):
        value, velocity = p.detach().clone(), torch.zeros(p.shape, dtype=torch.promote_types(p.dtype, torch.float32))
        for step in range(steps):
            shadow = [nn.Parameter(torch.empty_like(q)) for q in params]
            give_gradients(shadow, step)
            new, velocity = momentum(
                value.to(velocity.dtype), sign * shadow[number].grad.to(velocity.dtype), velocity, 0.1 / (step + 1), 0.5
            )
            value = new.to(p.dtype)
        result.append(value)
    return result


def close(first, second, tolerance: float = 1e-6) -> None:
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=tolerance, atol=tolerance)


def blocks(optimizer):
    return [block for layout in optimizer._layouts for block in layout.blocks]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("maximize", [False, True])
def test_every_kind_of_block_gives_what_the_formula_gives(dtype, maximize):
    params = parameters(dtype)
    params.append(nn.Parameter(torch.randn(6, 8, generator=torch.Generator().manual_seed(1)).to(dtype).t()))
    expected = plain(params, 3, sign=-1.0 if maximize else 1.0)
    optimizer = Momentum(params, maximize=maximize)
    run(optimizer, params, 3)
    assert {type(block) for block in blocks(optimizer)} == {FlatBlock, WholeBlock, ListBlock}
    close(params, expected, {torch.bfloat16: 1e-2, torch.float16: 1e-3}.get(dtype, 1e-6))
    full = torch.float64 if dtype == torch.float64 else torch.float32
    assert all(optimizer.state[p]["velocity"].dtype == full for p in params)


def test_small_tensors_share_one_buffer_and_keep_identity():
    params = parameters()
    before = [p.detach().clone() for p in params]
    give_gradients(params, 0)
    optimizer = Momentum(params, lr=0.0)
    optimizer.step()
    close(params, before, 0)
    (flat,) = [block for block in blocks(optimizer) if isinstance(block, FlatBlock)]
    assert len(flat.params) == len(SHAPES) - 2
    assert len({p.untyped_storage().data_ptr() for p in flat.params}) == 1
    assert [p.shape for p in params] == [torch.Size(shape) for shape in SHAPES]


@pytest.mark.parametrize("kind", [Momentum, Normed])
def test_resumes_to_the_bit(kind):
    straight, cut = parameters(), parameters()
    run(kind(straight), straight, 10)
    first = kind(cut)
    run(first, cut, 5)
    state = copy.deepcopy(first.state_dict())
    fresh = [nn.Parameter(p.detach().clone()) for p in cut]
    second = kind(fresh)
    second.load_state_dict(state)
    run(second, fresh, 5, first=5)
    close(straight, fresh, 0)


def test_loading_into_a_used_optimizer_takes_its_blocks_apart():
    params = parameters()
    optimizer = Momentum(params)
    run(optimizer, params, 2)
    weights, state = [p.detach().clone() for p in params], copy.deepcopy(optimizer.state_dict())
    run(optimizer, params, 2, first=2)
    expected = [p.detach().clone() for p in params]
    run(optimizer, params, 3, first=9)
    optimizer.load_state_dict(state)
    with torch.no_grad():
        for p, weight in zip(params, weights, strict=True):
            p.copy_(weight)
    run(optimizer, params, 2, first=2)
    close(params, expected, 0)
    assert any(isinstance(block, FlatBlock) for block in blocks(optimizer))


def test_a_loaded_state_keeps_full_precision():
    params = parameters(torch.bfloat16)
    optimizer = Momentum(params)
    run(optimizer, params, 2)
    fresh = Momentum([nn.Parameter(p.detach().clone()) for p in params])
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for p, q in zip(params, fresh.param_groups[0]["params"], strict=True):
        assert torch.equal(optimizer.state[p]["velocity"], fresh.state[q]["velocity"])
        assert fresh.state[q]["velocity"].dtype == torch.float32


def test_a_parameter_that_starts_late_or_pauses_counts_its_own_steps():
    shapes = [(4,), (5,), (6,), (3, 3)]
    params, expected = parameters(shapes=shapes), parameters(shapes=shapes)
    absent = {0: {1}, 1: {1}, 2: {0, 2}, 3: set(), 4: {2}}
    optimizer = Momentum(params)
    alone = [Momentum([p]) for p in expected]
    for step, missing in absent.items():
        for group in (params, expected):
            give_gradients(group, step)
            for number in missing:
                group[number].grad = None
        optimizer.step()
        for single in alone:
            single.step()
    close(params, expected, 0)
    assert [int(optimizer.state[p]["step"]) for p in params] == [4, 3, 3, 5]


def test_a_moved_parameter_is_found_again():
    params = parameters(shapes=[(4,), (5,), (6,), (3, 3)])
    expected = parameters(shapes=[(4,), (5,), (6,), (3, 3)])
    optimizer, reference = Momentum(params), Momentum(expected)
    run(optimizer, params, 2)
    run(reference, expected, 2)
    params[1].data = params[1].detach().clone()
    run(optimizer, params, 2, first=2)
    run(reference, expected, 2, first=2)
    close(params, expected, 0)


def test_tied_and_shared_memory_stays_tied():
    base = torch.zeros(8)
    first, second = nn.Parameter(base[:4]), nn.Parameter(base[4:])
    optimizer = Momentum([first, second, *parameters(shapes=[(3,), (2,)])])
    params = optimizer.param_groups[0]["params"]
    run(optimizer, params, 1)
    assert torch.equal(base[:4], first.detach())
    assert torch.equal(base[4:], second.detach())
    assert bool((base != 0).all())


def test_a_model_that_was_stepped_saves_copies_and_loads_as_any_other(tmp_path: Path):
    model = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    optimizer = Momentum(model.parameters())
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    loaded = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())
    twin = copy.deepcopy(model)
    twin[0].weight.data.zero_()
    assert bool((model[0].weight != 0).any())
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    assert buffer.tell() < 10_000


def test_groups_may_be_added_later():
    params = parameters(shapes=[(4,), (5,)])
    optimizer = Momentum(params[:1])
    run(optimizer, params, 1)
    optimizer.add_param_group({"params": params[1:], "lr": 0.0})
    before = params[1].detach().clone()
    run(optimizer, params, 1, first=1)
    assert torch.equal(params[1].detach(), before)
    assert int(optimizer.state[params[1]]["step"]) == 1


def test_gradients_in_other_layouts_and_dtypes_are_understood():
    params, expected = parameters(shapes=[(4, 6), (5, 3), (300, 300)]), parameters(shapes=[(4, 6), (5, 3), (300, 300)])
    give_gradients(params, 0)
    give_gradients(expected, 0)
    for p in params:
        p.grad = p.grad.t().contiguous().t()
        assert not p.grad.is_contiguous()
    Momentum(params).step()
    Momentum(expected).step()
    close(params, expected, 0)


@pytest.mark.parametrize("kind", [Momentum, Normed])
def test_pieces_cover_what_is_longer_than_one(kind, monkeypatch):
    whole, pieces = parameters(shapes=[(LARGE,)]), parameters(shapes=[(LARGE,)])
    run(kind(whole), whole, 2)
    monkeypatch.setattr("trainkit.optim.blocks.PIECE", 1000)
    optimizer = kind(pieces)
    run(optimizer, pieces, 2)
    assert len(blocks(optimizer)[0].pieces) == 71
    close(whole, pieces, 1e-6)


def test_norms_of_flat_segments_are_those_of_the_tensors():
    params, single = parameters(), parameters()
    run(Normed(params), params, 3)
    for number, p in enumerate(single):
        velocity = torch.zeros_like(p)
        for step in range(3):
            shadow = [nn.Parameter(torch.empty_like(q)) for q in single]
            give_gradients(shadow, step)
            direction, velocity = kept_direction(p.detach(), shadow[number].grad, velocity, 0.5)
            with torch.no_grad():
                p -= 0.1 * p.norm() / direction.norm() * direction
    close(params, single, 2e-6)


@pytest.mark.parametrize("kind", [Momentum, Normed])
def test_the_compiled_step_gives_what_the_eager_one_gives(kind):
    params, expected = parameters(), parameters()
    run(kind(params, compiled=True), params, 3)
    run(kind(expected), expected, 3)
    close(params, expected, 2e-6)


def test_a_failed_compilation_says_what_to_install(monkeypatch):
    def fail(*arguments, **keywords):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    params = parameters(shapes=[(5,), (4,)])

    class Other(Momentum):
        formula = staticmethod(lambda p, g, v, lr, beta: (p - lr * g, v))

    give_gradients(params, 0)
    with pytest.raises(Exception, match="install a C\\+\\+ compiler"):
        Other(params, compiled=True).step()


@pytest.mark.parametrize(
    "options", [{"lr": -1.0}, {"lr": float("nan")}, {"betas": (0.9, 1.0)}, {"eps": -1e-8}, {"weight_decay": -0.1}]
)
def test_hyper_parameters_out_of_range_are_refused(options):
    class Free(Momentum):
        def __init__(self, params, defaults):
            ElementwiseOptimizer.__init__(self, params, defaults)

    (key,) = options
    with pytest.raises(OptimizerError, match=f"Free: {key}"):
        Free(parameters(), {"lr": 0.1, **options})
    with pytest.raises(ValueError, match=f"Free: {key}"):
        Free([{"params": parameters(), **options}], {"lr": 0.1})


def test_sparse_and_complex_gradients_are_refused():
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(OptimizerError, match=r"Momentum takes no sparse gradients[\s\S]*sparse=False"):
        Momentum(table.parameters()).step()
    p = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    p.grad = torch.ones(2, dtype=torch.complex64)
    with pytest.raises(OptimizerError, match="no complex gradients"):
        Momentum([p]).step()


def test_a_closure_is_called_with_gradients():
    p = nn.Parameter(torch.ones(3))
    optimizer = Momentum([p])

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 3.0
    assert not torch.equal(p.detach(), torch.ones(3))


def test_empty_parameters_are_left_alone():
    params = [nn.Parameter(torch.empty(0)), *parameters(shapes=[(3,)])]
    give_gradients(params, 0)
    Momentum(params).step()
    assert params[0].numel() == 0


def test_norms_are_euclidean():
    torch.testing.assert_close(full_norms([torch.tensor([3.0, 4.0]), torch.tensor([[1.0]])]), torch.tensor([5.0, 1.0]))

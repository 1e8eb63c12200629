"""Batches: what is gathered side by side, and what happens when gradients come and go."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from torch import Tensor, nn
from trainkit.optim import OptimizerError
from trainkit.optim.adam import adamw_
from trainkit.optim.batches import Batches, Row, Stack
from trainkit.optim.blocks import piece_length
from trainkit.optim.ops import ListOps, TensorOps


def parameter(*shape: int, value: float = 1.0, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    made = nn.Parameter(torch.full(shape, value, dtype=dtype))
    made.grad = torch.full(shape, 2.0 * value, dtype=dtype)
    return made


def batches() -> tuple[Batches, dict[Tensor, dict[str, Tensor]]]:
    state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)
    return Batches("Test", state, lambda p: {"sum": torch.zeros(p.shape)}), state


def step(made: Batches, params: list[nn.Parameter]) -> None:
    """Add up the gradients in the state, and take them from the weights."""
    with torch.no_grad():
        for batch in made.ready(params):
            batch.tick()
            gradients, weights = batch.gradients(), batch.weights()
            batch.states["sum"] += gradients
            batch.write(weights.sub_(gradients))


def test_equal_shapes_are_stacked_and_vectors_joined_to_rows() -> None:
    params = [parameter(2, 3), parameter(4), parameter(2, 3), parameter(3, 2), parameter(), parameter(0)]
    found = batches()[0].ready(params)
    assert [(type(batch), len(batch.params)) for batch in found] == [(Stack, 2), (Row, 2), (Stack, 1)]
    assert [tuple(batch.gradients().shape) for batch in found] == [(2, 2, 3), (5,), (1, 3, 2)]


def test_batches_are_no_longer_than_a_piece() -> None:
    length = piece_length() // 2
    assert [len(batch.params) for batch in batches()[0].ready([parameter(length) for _ in range(5)])] == [2, 2, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_weights_are_written_back_in_their_dtype(dtype: torch.dtype) -> None:
    strided = nn.Parameter(torch.ones(3, 2, dtype=dtype).t())
    strided.grad = torch.full((2, 3), 2.0, dtype=dtype)
    shapes = [(2, 3), (2, 3), (3, 2), (4,), (5,)]
    params = [*[parameter(*shape, dtype=dtype) for shape in shapes], strided]
    before = [p.data_ptr() for p in params]
    made, _ = batches()
    step(made, params)
    assert all(bool((p == -1).all()) and p.dtype == dtype for p in params)
    assert [p.data_ptr() for p in params] == before


def test_root_mean_squares_are_those_of_each_parameter() -> None:
    params = [parameter(2, 3, value=3.0), parameter(2, 3), parameter(4, value=2.0), parameter(5)]
    stack, row = batches()[0].ready(params)
    assert stack.root_mean_squares(stack.weights()).tolist() == pytest.approx([3.0, 1.0])
    assert row.root_mean_squares(row.weights()).tolist() == pytest.approx([2.0, 1.0])
    assert row.spread(torch.tensor([5.0, 7.0])).tolist() == [5.0] * 4 + [7.0] * 5
    assert stack.spread(torch.tensor([5.0, 7.0])).shape == (2, 1, 1)


def test_states_and_counts_stay_with_their_parameters() -> None:
    params = [parameter(2, 3), parameter(2, 3), parameter(4), parameter(5)]
    made, state = batches()
    steps = 0
    for missing in ({0}, set(), {1, 2}, {3}, set()):
        for number, p in enumerate(params):
            p.grad = None if number in missing else torch.full_like(p, 2.0)
        step(made, params)
        steps += 1
    for p, absences in zip(params, (1, 1, 1, 1), strict=True):
        assert float(state[p]["step"]) == steps - absences
        assert torch.equal(state[p]["sum"], torch.full_like(p, 2.0 * (steps - absences)))
        assert state[p]["sum"].shape == p.shape


def test_batches_stay_while_the_same_parameters_have_gradients() -> None:
    params = [parameter(2, 3), parameter(4)]
    made, _ = batches()
    assert made.ready(params) is made.ready(params)


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(OptimizerError, match="takes no sparse gradients"):
        batches()[0].ready(list(table.parameters()))


@pytest.mark.parametrize("lists", [False, True])
def test_adamw_equals_torch(lists: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.ones(7), nn.Parameter(torch.ones(7))
    moments = [torch.zeros(7), torch.zeros(7)]
    other = torch.optim.AdamW([theirs], lr=0.01, betas=(0.8, 0.9), eps=1e-4, weight_decay=0.1)
    for count in range(1, 6):
        g = theirs.grad = torch.randn(7, generator=generator)
        options = {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1, "step": count}
        if lists:
            adamw_(ListOps, [ours], [g], [[moment] for moment in moments], **options)  # type: ignore[arg-type]
        else:
            adamw_(TensorOps, ours, g, moments, **options)  # type: ignore[arg-type]
        other.step()
    assert torch.allclose(ours, theirs.detach(), rtol=1e-6, atol=1e-7)

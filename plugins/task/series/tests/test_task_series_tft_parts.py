"""The parts of the Temporal Fusion Transformer: sizes, formulas written out, gradients, dropout."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trainkit_task_series import attention as attention_module
from trainkit_task_series import selection_blocks
from trainkit_task_series.attention import InterpretableAttention, attended, horizon_mask, mean_weights
from trainkit_task_series.dropout import Dropout, kept, share_kept
from trainkit_task_series.gates import GatedResidual
from trainkit_task_series.selection import VariableSelection
from trainkit_task_series.selection_blocks import VariableWeights, combined, combined_in_blocks
from trainkit_task_series.statics import Statics


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def shaken(module: nn.Module) -> nn.Module:
    """Return the module with every parameter moved: fresh biases of 0 would hide that they are used."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module


def residual_by_hand(module: GatedResidual, a, c=None):
    """Return the formulas of the paper, (2) to (5)."""
    eta2 = a @ module.enter.weight.T + module.enter.bias
    if c is not None:
        eta2 = eta2 + c @ module.context.weight.T
    eta2 = torch.where(eta2 > 0, eta2, eta2.exp() - 1)
    eta1 = eta2 @ module.middle.weight.T + module.middle.bias
    w5, w4 = module.gate.value_gate.weight.chunk(2)
    b5, b4 = module.gate.value_gate.bias.chunk(2)
    total = (1 / (1 + (-(eta1 @ w4.T + b4)).exp())) * (eta1 @ w5.T + b5)
    total = total + (a if module.skip is None else a @ module.skip.weight.T + module.skip.bias)
    centred = total - total.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * module.norm.weight + module.norm.bias


def test_the_parts_have_the_parameters_of_the_reference():
    assert size(GatedResidual(32, 32, 32, 0.1)) == 4_288
    assert size(GatedResidual(32, 32, 32, 0.1, context=32)) == 5_312
    assert size(VariableSelection(8, 32, 0.1, context=True)) == 47_208
    assert size(InterpretableAttention(32, 8)) == 2_372


@pytest.mark.parametrize(("inputs", "context"), [(6, None), (6, 3), (5, 3)])
def test_a_gated_residual_network_is_the_formula_of_the_paper(inputs, context):
    module = shaken(GatedResidual(inputs, 6, 6, 0.5, context)).eval()
    a, c = torch.randn(7, inputs), None if context is None else torch.randn(7, context)
    torch.testing.assert_close(module(a, c), residual_by_hand(module, a, c), atol=1e-5, rtol=1e-5)


def variable_by_hand(module: VariableSelection, j: int) -> GatedResidual:
    """Return the network of one variable as a module of its own."""
    own = GatedResidual(module.width, module.width, module.width, 0.0)
    own.enter.weight.data, own.enter.bias.data = module.enter_weight[j].data.T, module.enter_bias[j].data
    own.middle.weight.data, own.middle.bias.data = module.middle_weight[j].data.T, module.middle_bias[j].data
    own.gate.value_gate.weight.data = torch.cat([module.value_weight[j].data.T, module.gate_weight[j].data.T])
    own.gate.value_gate.bias.data = torch.cat([module.value_bias[j].data, module.gate_bias[j].data])
    own.norm.weight.data, own.norm.bias.data = module.norm_weight[j].data, module.norm_bias[j].data
    return own


def test_variable_selection_is_a_softmax_over_all_and_a_network_of_each():
    module = shaken(VariableSelection(5, 8, 0.5, context=True)).eval()
    x, c = torch.randn(5, 7, 8), torch.randn(7, 8)
    selected, weights = module(x, c)
    expected = residual_by_hand(module.weigh, torch.cat(list(x), dim=-1), c).softmax(-1)
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(7))
    each = torch.stack([residual_by_hand(variable_by_hand(module, j), x[j]) for j in range(5)])
    torch.testing.assert_close(selected, torch.einsum("nv,vnd->nd", expected, each), atol=1e-5, rtol=1e-5)


def lines_of_values(values, missing=None):
    """Return the lines [V, 2, N] of values [V, N]."""
    there = torch.ones_like(values) if missing is None else (~missing.t()).to(values)
    return torch.stack([values * there, there], dim=1)


@pytest.mark.parametrize("variables", [1, 5])
def test_real_variables_are_selected_as_their_embeddings_would_be(variables, monkeypatch):
    monkeypatch.setattr(selection_blocks, "BLOCK", 4 * variables * 8)  # of 14 rows: three blocks and a shorter one
    module = shaken(VariableSelection(variables, 8, 0.5, context=True)).eval()
    values, scale, shift = torch.randn(variables, 14), torch.randn(variables, 8), torch.randn(variables, 8)
    context = torch.randn(2, 8)
    found, weights = module.select_reals(lines_of_values(values), scale, shift, context)
    embedded = values[:, :, None] * scale[:, None] + shift[:, None]
    expected, expected_weights = module(embedded, context.repeat(7, 1))
    torch.testing.assert_close(weights, expected_weights, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    asked = lines_of_values(values).requires_grad_()
    again, _ = module.select_reals(asked, scale, shift, context)
    torch.testing.assert_close(again, found, atol=1e-5, rtol=1e-5)
    again.sum().backward()
    assert asked.grad[:, 0].abs().min() > 0, "who asks for the gradient of the inputs gets it"


def test_a_missing_value_has_no_weight_and_no_influence_and_the_others_share_its_part():
    module = shaken(VariableSelection(4, 8, 0.0, context=True)).eval()
    values, scale, shift = torch.randn(4, 6), torch.randn(4, 8), torch.randn(4, 8)
    missing = torch.zeros(6, 4, dtype=torch.bool)
    missing[2, 1] = missing[3, 0] = missing[3, 1] = True
    context = torch.randn(6, 8)
    found, weights = module.select_reals(lines_of_values(values, missing), scale, shift, context, missing)
    assert (weights[missing] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(6))
    other = torch.where(missing.t(), torch.tensor(7.0), values)
    again, _ = module.select_reals(lines_of_values(other, missing), scale, shift, context, missing)
    assert torch.equal(found, again)
    whole, _ = module.select_reals(lines_of_values(values), scale, shift, context)
    torch.testing.assert_close(found[[0, 1, 4, 5]], whole[[0, 1, 4, 5]])
    assert (found - whole)[[2, 3]].abs().max() > 1e-2


def block_inputs(rows: int = 7):
    """Return lines, what is learned, and what dropout keeps, in double precision."""
    torch.manual_seed(0)
    variables, width = 3, 4
    lines = torch.randn(variables, 2, rows, dtype=torch.float64)

    def learned(*shape: int):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    matrices, rows_of = (variables, width, width), (variables, width)
    own = [learned(*shape) for shape in (matrices, rows_of, matrices, rows_of, matrices, rows_of, rows_of, rows_of)]
    weights = torch.rand(rows, variables, dtype=torch.float64, requires_grad=True)
    keep = (torch.rand(variables, rows, width) < 0.7).to(torch.int8), 0.7
    return lines, [learned(variables, 2, width), learned(variables, 2, width), weights, *own], keep


@pytest.mark.parametrize("dropped", [False, True])
def test_gradients_of_blocks_are_those_of_finite_differences(dropped, monkeypatch):
    monkeypatch.setattr(selection_blocks, "BLOCK", 3 * 3 * 4)  # of 7 rows: two blocks and a shorter one
    lines, learned, keep = block_inputs()
    keep = keep if dropped else None

    def blocks(entering, embedding, weights, *own):
        return combined_in_blocks(lines, entering, embedding, weights, VariableWeights(*own), keep)

    def plain(entering, embedding, weights, *own):
        values = lines.transpose(1, 2)
        return combined(values @ entering, values @ embedding, weights, VariableWeights(*own), keep)

    torch.testing.assert_close(blocks(*learned), plain(*learned))
    assert torch.autograd.gradcheck(blocks, learned)
    assert torch.autograd.gradgradcheck(blocks, learned)


def test_attention_has_one_value_for_all_heads_and_the_mean_of_their_weights():
    module = shaken(InterpretableAttention(8, 4))
    x, horizon = torch.randn(9, 3, 8), 4
    out, weights = module(x, horizon, weights=True)
    fused, nothing = module(x, horizon)
    assert nothing is None
    torch.testing.assert_close(out, fused, atol=1e-6, rtol=1e-5)
    queries, keys = module.query(x[5:]), module.key(x)
    heads = []
    for h in range(4):
        part = slice(2 * h, 2 * h + 2)
        scores = torch.einsum("qbd,kbd->bqk", queries[..., part], keys[..., part]) / math.sqrt(2)
        for row in range(horizon):
            scores[:, row, 5 + row + 1 :] = -1e9
        heads.append(scores.softmax(-1))
    mean = torch.stack(heads).mean(0)
    torch.testing.assert_close(weights, mean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, horizon))
    expected = torch.einsum("bqk,kbe->qbe", mean, module.value(x)) @ module.out.weight.T
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("block", [1, 1 << 20])
def test_gradients_of_attention_are_those_of_finite_differences(block, monkeypatch):
    monkeypatch.setattr(attention_module, "BLOCK", block)  # a sample at a time, or all at once
    torch.manual_seed(0)
    shapes = ((3, 2, 3, 4), (3, 2, 3, 6), (3, 5, 6))
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    mask = horizon_mask(4, 6, torch.device("cpu"), torch.float64)

    def blocks(query, key, value):
        return attended(query, key, value, mask)

    torch.testing.assert_close(blocks(*inputs), mean_weights(inputs[0], inputs[1], mask) @ inputs[2].mT)
    assert torch.autograd.gradcheck(blocks, inputs)
    assert torch.autograd.gradgradcheck(blocks, inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_mask_is_safe_in_any_precision(dtype):
    mask = horizon_mask(3, 8, torch.device("cpu"), dtype)
    assert torch.equal(mask == 0, torch.ones(3, 8).tril(5).bool())
    query, key = torch.full((1, 2, 4, 3), 100.0, dtype=dtype), torch.full((1, 2, 4, 8), 100.0, dtype=dtype)
    weights = mean_weights(query, key, mask)
    assert weights.isfinite().all()
    assert (weights[0][mask != 0] == 0).all(), "the largest score does not outweigh the mask"
    value = torch.ones(1, 2, 8, dtype=dtype)
    torch.testing.assert_close(attended(query, key, value, mask), torch.ones(1, 3, 2, dtype=dtype))


def test_dropout_keeps_its_share_scales_what_stays_and_repeats_under_a_seed():
    torch.manual_seed(3)
    count = 1 << 18
    for rate in (0.001, 0.15, 0.5, 0.99):
        share = kept((count,), rate, torch.device("cpu")).double().mean().item()
        assert abs(share - (1 - rate)) < 5 * math.sqrt(rate * (1 - rate) / count)
        assert abs(share_kept(rate) - (1 - rate)) < 1e-5
    drop, x = Dropout(0.25), torch.full((5, 1001), 2.0)
    torch.manual_seed(1)
    first = drop(x)
    assert set(first.unique().tolist()) == {0.0, torch.tensor(2.0).div(0.75).item()}
    torch.manual_seed(1)
    assert torch.equal(drop(x), first)
    assert not torch.equal(drop(x), first)
    assert drop.eval()(x) is x


def test_neighbouring_numbers_are_dropped_independently():
    torch.manual_seed(0)
    keep = kept((4, 1 << 16), 0.5, torch.device("cpu")).double() - 0.5
    flat = keep.flatten()
    for lag in (1, 2, 3, 4, 32):
        assert abs((flat[lag:] * flat[:-lag]).mean().item()) < 5 * 0.25 / math.sqrt(len(flat))
    assert F.mse_loss(keep.mean(1), torch.zeros(4, dtype=keep.dtype)) < 1e-4


def test_categories_are_unseen_now_and_then_in_training_so_that_unseen_ones_mean_something():
    torch.manual_seed(0)
    statics = Statics((5,), 0, 8, dropout=0.25)
    known = torch.full((4_000, 1), 3)
    (select, *_), _ = statics(4_000, known, None)
    select.square().sum().backward()
    rows = statics.tables[0].weight.grad.abs().sum(1)
    assert (rows > 0).tolist() == [True, False, False, True, False]
    assert 0.22 < (statics._seen(known) == 0).float().mean() < 0.28
    assert torch.equal(statics.eval()._seen(known), known)

"""The stock transformer: sizes, padding, heads, gradient checkpointing."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from trainkit_task_stocks.transformer import StockTransformer, places, pooled

SMALL = {"width": 32, "heads": 4, "layers": 2, "feedforward": 64}


def made(features: int = 5, **options):
    """Return a small model in evaluation mode, bars [3, 60, F], and a mask: whole, the first 20 missing, nothing."""
    torch.manual_seed(0)
    model = StockTransformer(features, **{**SMALL, **options}).eval()
    observed = torch.ones(3, 60, features, dtype=torch.bool)
    observed[1, :20] = False
    observed[2] = False
    return model, torch.randn(3, 60, features), observed


@pytest.mark.parametrize("features", [1, 5, 21, 36])
def test_it_has_the_parameters_of_the_reference(features):
    with torch.device("meta"):
        model = StockTransformer(features)
    assert sum(p.numel() for p in model.parameters()) == 25_484_035 + 1_797 * features
    assert sum(p.numel() for p in model.blocks[0].parameters()) == 3_152_384
    assert sum(p.numel() for p in model.blocks.parameters()) == 25_219_072


def test_it_answers_with_prices_and_actions():
    model, bars, observed = made()
    outputs = model(bars, observed)
    assert outputs["prices"].shape == (3, 5, 5)
    assert outputs["actions"].shape == (3, 3)
    assert outputs["point"] is outputs["prices"]
    assert all(x.isfinite().all() for x in outputs.values())
    some, bars, _ = made(5, targets=2, horizon=7)
    outputs = some(bars[..., :3], past_covariates=bars[..., 3:4], past_time_features=bars[..., 4:])
    assert outputs["prices"].shape == (3, 7, 2)


@pytest.mark.parametrize("causal", [False, True])
def test_where_padding_stands_and_what_it_holds_changes_nothing(causal):
    model, bars, observed = made(causal=causal)
    before = model(bars, observed)
    after = model(bars.masked_fill(~observed, torch.nan), observed)
    for name in before:
        assert torch.equal(before[name], after[name])
        assert before[name].isfinite().all()
    cut = model(bars[1:2], observed[1:2])["prices"]
    torch.testing.assert_close(cut, before["prices"][1:2], atol=1e-5, rtol=1e-5)
    whole = model(bars)["prices"]
    torch.testing.assert_close(before["prices"][:1], whole[:1], atol=1e-5, rtol=1e-5)
    assert (before["prices"][1] - whole[1]).abs().max() > 1e-3
    model.train()
    sum(x.square().sum() for x in model(bars, observed).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_low_precision_stays_near_even_where_all_is_padding(kind, causal):
    model, bars, observed = made(causal=causal)
    exact = model(bars, observed)
    with torch.autocast("cpu", kind):
        mixed = model(bars, observed)
    sum(x.float().square().sum() for x in mixed.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        low = model.to(kind)(bars.to(kind), observed)
    for name, values in exact.items():
        torch.testing.assert_close(mixed[name].float(), values, atol=0.03, rtol=0.03)
        torch.testing.assert_close(low[name].float(), values, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("causal", [False, True])
def test_answers_are_the_same_with_and_without_gradients(causal):
    model, bars, observed = made(causal=causal)
    with_gradients = model(bars, observed)
    with torch.inference_mode():
        without = model(bars, observed)
    for name, values in with_gradients.items():
        torch.testing.assert_close(without[name], values, atol=1e-5, rtol=1e-5)


def test_only_bars_without_any_value_are_padding_and_a_single_missing_value_is_0():
    model, bars, _ = made()
    observed = torch.ones(3, 60, 5, dtype=torch.bool)
    observed[:, 7, 2] = False
    zeroed = bars.clone()
    zeroed[:, 7, 2] = 0
    torch.testing.assert_close(model(bars, observed)["prices"], model(zeroed)["prices"], atol=1e-5, rtol=1e-5)


def test_the_order_of_the_bars_counts():
    model, bars, _ = made()
    assert (model(bars)["prices"] - model(bars.flip(1))["prices"]).abs().max() > 1e-3


def test_a_causal_model_does_not_let_a_bar_see_later_ones():
    model, bars, _ = made(causal=True)
    ahead = torch.ones(60, 60, dtype=torch.bool).triu(1)
    bars.requires_grad_()
    x = model.norm(model.embed(bars) + places(60, 32, bars.device))
    for block in model.blocks:
        x = model._through(block, x, ahead, None)
    x[0, 30].square().sum().backward()
    assert (bars.grad[0, :31].abs().amax(-1) > 0).all()
    assert (bars.grad[0, 31:] == 0).all()
    free, _, _ = made()
    with torch.no_grad():
        assert (free(bars)["prices"] - model(bars)["prices"]).abs().max() > 1e-4


def test_pooling_is_the_mean_over_real_positions():
    states, padding = torch.randn(2, 4, 3), torch.tensor([[True, False, False, True], [True] * 4])
    torch.testing.assert_close(pooled(states, padding)[0], states[0, 1:3].mean(0))
    assert (pooled(states, padding)[1] == 0).all()
    torch.testing.assert_close(pooled(states, None), states.mean(1))


def test_places_are_sines_and_cosines():
    found = places(50, 8, torch.device("cpu"))
    for i in range(4):
        angles = torch.arange(50) / 10000 ** (2 * i / 8)
        torch.testing.assert_close(found[:, 2 * i], angles.sin())
        torch.testing.assert_close(found[:, 2 * i + 1], angles.cos())


def test_gradient_checkpointing_changes_neither_loss_nor_gradients_and_keeps_less():
    model, bars, observed = made(dropout=0.2)
    model.train()
    results = []
    for again in (False, True):
        if again:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        torch.manual_seed(5)
        kept = 0

        def count(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = sum(x.square().mean() for x in model(bars, observed).values())
        loss.backward()
        results.append((loss.item(), [p.grad.clone() for p in model.parameters()], kept))
    assert results[0][0] == results[1][0]
    for one, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, other)
    assert results[1][2] < 0.5 * results[0][2]


def test_it_learns_where_a_price_goes():
    torch.manual_seed(0)
    model = StockTransformer(2, horizon=2, dropout=0.0, width=16, heads=2, layers=1, feedforward=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(120):
        slope = torch.randn(32, 1)
        bars = torch.stack([slope * torch.arange(12) / 12, torch.randn(32, 12)], dim=-1)
        ahead = (slope * torch.tensor([12, 13]) / 12)[..., None]
        outputs = model(bars)
        labels = (slope[:, 0] > 0).long() * 2
        loss = F.mse_loss(outputs["prices"][..., :1], ahead) + 0.5 * F.cross_entropy(outputs["actions"], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.4 * sum(losses[:10])


def test_inputs_that_the_model_was_not_built_for_are_refused():
    model, bars, _ = made()
    with pytest.raises(ValueError, match="built for 5 features and is given 4"):
        model(bars[..., :4])
    with pytest.raises(ValueError, match="width 30 is not a multiple of 4 heads"):
        StockTransformer(5, width=30, heads=4)

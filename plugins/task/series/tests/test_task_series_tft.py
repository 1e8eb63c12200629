"""The Temporal Fusion Transformer as a whole: what it sees, what it must not see, what it answers."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trainkit_task_series.naive import seasonal_naive
from trainkit_task_series.tft import QUANTILES, TemporalFusionTransformer, Variables
from trainkit_task_series.window import level_and_spread

CONTEXT, HORIZON = 12, 5
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "_softmax", "mkldnn_rnn_layer"}


def made(targets: int = 2, covariates: int = 1, known: int = 2, context: int = CONTEXT, batch: int = 3, **options):
    """Return a model in evaluation mode with shaken weights, and a batch for it."""
    torch.manual_seed(0)
    horizon = options.pop("horizon", HORIZON)
    variables = Variables(targets, covariates, known, (4, 3), 2)
    model = TemporalFusionTransformer(variables, horizon, **{"width": 8, "heads": 2, **options}).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    inputs = {
        "past_values": torch.randn(batch, context, targets),
        "past_observed_mask": torch.rand(batch, context, targets) < 0.8,
        "static_categorical_features": torch.stack([torch.arange(batch) % 4, torch.arange(batch) % 3], dim=1),
        "static_real_features": torch.randn(batch, 2),
    }
    if covariates:
        inputs["past_covariates"] = torch.randn(batch, context, covariates)
    if known:
        inputs["past_time_features"] = torch.randn(batch, context, known)
        inputs["future_time_features"] = torch.randn(batch, horizon, known)
    return model, inputs


def pinball(outputs, truth):
    """Return the quantile loss, the sum over levels and the mean over the rest."""
    error, levels = truth[..., None] - outputs["quantiles"], outputs["quantile_levels"]
    return torch.maximum(levels * error, (levels - 1) * error).sum(-1).mean()


def test_the_whole_has_the_parameters_of_its_parts():
    model = TemporalFusionTransformer(Variables(4, 0, 3, (4,)), 96)
    size = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert size["encoder"] == size["decoder"] == 8_448
    assert size["past_selection"] == 47_208
    assert size["enrichment"] == 5_312
    assert size["feedforward"] == 4_288
    assert size["attention"] == 2_372
    assert size["head"] == 4 * 33 * len(QUANTILES)
    # Four contexts, the table of 4 values, and the selection of a single static: its network and its weight.
    assert size["statics"] == 4 * 4_288 + 4 * 32 + 4_288 + (2 * 1_056 + 2 * 33 + 33 + 2)
    assert size["embedding"] == 8 * 64


def test_the_whole_is_the_figure_of_the_paper_put_together_step_by_step():
    model, inputs = made()
    statics = model.statics
    tables = [table(inputs["static_categorical_features"][:, j]) for j, table in enumerate(statics.tables)]
    reals = [
        inputs["static_real_features"][:, j, None] * statics.reals.weight[j] + statics.reals.bias[j] for j in range(2)
    ]
    chosen, _ = statics.selection(torch.stack([*tables, *reals]))
    contexts = (statics.select, statics.enrich, statics.hidden, statics.cell)
    select, enrich, hidden, cell = (part(chosen) for part in contexts)
    observed = torch.ones(3, CONTEXT, 2, dtype=torch.bool)
    past = torch.cat([inputs[name] for name in ("past_values", "past_covariates", "past_time_features")], dim=-1)
    scale, shift = model.embedding.weight, model.embedding.bias
    steps, state = [], (hidden[None], cell[None])
    recurrent = []
    for t in range(CONTEXT + HORIZON):
        ahead = t >= CONTEXT
        values = inputs["future_time_features"][:, t - CONTEXT] if ahead else past[:, t]
        values = torch.cat([values, torch.full((3, 1), (t - CONTEXT) / CONTEXT)], dim=1)
        first = 3 if ahead else 0
        parts = [v[:, None] * scale[first + j] + shift[first + j] for j, v in enumerate(values.unbind(1))]
        embedded = torch.stack(parts)
        step, _ = (model.future_selection if ahead else model.past_selection)(embedded, select)
        steps.append(step)
        answer, state = (model.decoder if ahead else model.encoder)(step[None], state)
        recurrent.append(answer[0])
    local = [model.local_skip(y, x) for y, x in zip(recurrent, steps, strict=True)]
    enriched = torch.stack([model.enrichment(x, enrich) for x in local])
    mixed, _ = model.attention(enriched, HORIZON, weights=True)
    answers = []
    for h in range(HORIZON):
        x = model.attention_skip(mixed[h], enriched[CONTEXT + h])
        x = model.output_skip(model.feedforward(x), local[CONTEXT + h])
        answers.append(model.head(x).view(3, 2, -1))
    expected = torch.stack(answers, dim=1).sort(-1).values
    found = model(**{**inputs, "past_observed_mask": observed})["quantiles"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_it_answers_with_ascending_quantiles_of_every_target_at_every_step():
    model, inputs = made()
    outputs = model(**inputs)
    assert outputs["quantiles"].shape == (3, HORIZON, 2, len(QUANTILES))
    assert (outputs["quantiles"].diff(dim=-1) >= 0).all()
    torch.testing.assert_close(outputs["quantile_levels"], torch.tensor(QUANTILES))
    assert (model.train()(**inputs)["quantiles"].diff(dim=-1) < 0).any(), "in training they may cross, and learn not to"


def test_attention_and_the_weights_of_variables_are_returned_when_asked_for():
    model, inputs = made(targets=1, covariates=3, known=3, context=288, horizon=96, batch=2)
    plain, asked = model(**inputs), model(**inputs, output_attentions=True)
    assert set(asked) - set(plain) == {"attentions", "past_weights", "future_weights", "static_weights"}
    torch.testing.assert_close(plain["quantiles"], asked["quantiles"], atol=1e-5, rtol=1e-5)
    assert asked["attentions"].shape == (2, 96, 384)
    assert asked["past_weights"].shape == (2, 288, 8)
    assert asked["future_weights"].shape == (2, 96, 4)
    assert asked["static_weights"].shape == (2, 4)
    for name in ("attentions", "past_weights", "future_weights", "static_weights"):
        torch.testing.assert_close(asked[name].sum(-1), torch.ones(asked[name].shape[:-1]))
    ahead = torch.ones(96, 384, dtype=torch.bool).triu(288 + 1)
    assert (asked["attentions"][:, ahead] == 0).all()
    assert (asked["attentions"][:, ~ahead] > 0).all()


def test_it_takes_nothing_of_the_horizon_but_what_is_known_and_never_looks_ahead():
    model, inputs = made()
    assert not {"future_values", "future_covariates"} & set(inspect.signature(model.forward).parameters)
    before = model(**inputs)["quantiles"]
    changed = copy.deepcopy(inputs)
    changed["future_time_features"][:, 3] += 1
    after = model(**changed)["quantiles"]
    torch.testing.assert_close(before[:, :3], after[:, :3], atol=1e-6, rtol=1e-6)
    assert ((before - after)[:, 3:].abs().amax(dim=(0, 2, 3)) > 1e-4).all()


@pytest.mark.parametrize("name", ["past_values", "past_covariates", "past_time_features", "static_real_features"])
def test_every_input_counts_at_every_place(name):
    model, inputs = made()
    inputs["past_observed_mask"] = torch.ones_like(inputs["past_observed_mask"])
    inputs[name].requires_grad_()
    model(**inputs)["quantiles"].square().sum().backward()
    assert (inputs[name].grad.abs() > 0).all()


def test_samples_do_not_see_each_other():
    model, inputs = made()
    whole = model(**inputs)["quantiles"]
    for i in range(3):
        alone = model(**{name: x[i : i + 1] for name, x in inputs.items()})["quantiles"]
        torch.testing.assert_close(alone, whole[i : i + 1], atol=1e-5, rtol=1e-5)


def test_what_stands_at_a_missing_place_changes_nothing_even_if_it_is_no_number():
    model, inputs = made()
    before = model(**inputs, output_attentions=True)
    missing = ~inputs["past_observed_mask"]
    assert missing.any()
    inputs["past_values"] = inputs["past_values"].masked_fill(missing, torch.nan)
    after = model(**inputs, output_attentions=True)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (before["past_weights"][..., :2][missing] == 0).all()
    inputs["past_observed_mask"] = torch.zeros_like(missing)
    assert model(**inputs)["quantiles"].isfinite().all(), "nothing measured at all"
    model.train()
    model(**inputs)["quantiles"].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_level_and_spread_are_those_of_what_was_measured():
    torch.manual_seed(0)
    values, observed = torch.randn(3, 20, 2) * 4 + 7, torch.rand(3, 20, 2) < 0.6
    level, spread = level_and_spread(values.masked_fill(~observed, torch.nan), observed)
    for b in range(3):
        for t in range(2):
            measured = values[b, observed[b, :, t], t]
            torch.testing.assert_close(level[b, 0, t], measured.mean())
            torch.testing.assert_close(spread[b, 0, t], measured.std(correction=0) + 0.1)
    for found, expected in zip(level_and_spread(values, None), level_and_spread(values, observed | True), strict=True):
        torch.testing.assert_close(found, expected)
    assert [x.unique().tolist() for x in level_and_spread(values, observed & False)] == [[0], [pytest.approx(0.1)]]


def test_with_instance_norm_a_forecast_moves_with_its_window():
    moved = []
    for instance_norm in (True, False):
        model, inputs = made(instance_norm=instance_norm)
        before = model(**inputs)["quantiles"]
        shift = torch.tensor([5.0, -3.0])
        after = model(**{**inputs, "past_values": inputs["past_values"] + shift})["quantiles"]
        moved.append((after - before - shift[:, None]).abs().max())
    assert moved[0] < 1e-4 < moved[1]
    inputs["past_observed_mask"] = torch.zeros_like(inputs["past_observed_mask"])
    model, _ = made(instance_norm=True)
    inputs["past_values"] = inputs["past_values"] * torch.nan
    assert model(**inputs)["quantiles"].isfinite().all(), "nothing measured at all"


def test_with_a_season_skip_it_can_repeat_the_last_season():
    model, inputs = made(season_skip=4)
    for layer in (model.head, model.season_gate):
        layer.weight.data.zero_()
    model.head.bias.data.zero_()
    expected = seasonal_naive(inputs["past_values"], inputs["past_observed_mask"], HORIZON, 4)[..., None]
    for bias, share in ((100.0, 1.0), (0.0, 0.5), (-100.0, 0.0)):
        model.season_gate.bias.data.fill_(bias)
        found = model(**inputs)["quantiles"]
        torch.testing.assert_close(found, (share * expected).expand_as(found))


def test_with_a_season_skip_the_last_season_is_an_input_of_the_horizon():
    model, inputs = made(season_skip=4)
    outputs = model(**inputs, output_attentions=True)
    # Two targets, two known inputs and the distance.
    assert outputs["future_weights"].shape == (3, HORIZON, 5)
    assert (outputs["future_weights"] > 0).all()
    missing = ~inputs["past_observed_mask"]
    changed = {**inputs, "past_values": inputs["past_values"].masked_fill(missing, torch.nan)}
    assert torch.equal(model(**changed)["quantiles"], outputs["quantiles"])
    inputs["past_values"].requires_grad_()
    model.season_embedding.weight.grad = None
    model.train()(**inputs)["quantiles"].square().sum().backward()
    assert (model.season_embedding.weight.grad != 0).all()
    with pytest.raises(ValueError, match="built for 2 future inputs and is given 1"):
        model(**{**inputs, "future_time_features": inputs["future_time_features"][..., :1]})


def test_a_season_skip_moves_with_the_window_that_instance_norm_is_about():
    model, inputs = made(season_skip=4, instance_norm=True)
    shift = torch.tensor([5.0, -3.0])
    before, after = (model(**{**inputs, "past_values": inputs["past_values"] + by})["quantiles"] for by in (0, shift))
    torch.testing.assert_close(after - before, shift[:, None].expand_as(after), atol=1e-4, rtol=1e-4)


def test_each_target_has_a_head_of_its_own():
    model, inputs = made(targets=3, covariates=0)
    outputs = model(**inputs)["quantiles"]
    outputs[:, :, 1].sum().backward()
    rows = model.head.weight.grad.view(3, len(QUANTILES), -1).abs().amax(dim=(1, 2))
    assert rows[1] > 0
    assert rows[0] == rows[2] == 0
    model.head.bias.data.view(3, -1)[2] += 5
    moved = model(**inputs)["quantiles"] - outputs
    torch.testing.assert_close(moved[:, :, 2], torch.full_like(moved[:, :, 2], 5.0))
    torch.testing.assert_close(moved[:, :, :2], torch.zeros_like(moved[:, :, :2]))


def test_no_loop_runs_over_variables_targets_heads_samples_or_time():
    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            # A reshape copies or does not, as the shapes have it; both are one product.
            self.calls += func.overloadpacket.__name__ in PRODUCTS
            return func(*args, **(kwargs or {}))

    counts = []
    for options in ({}, {"targets": 5, "covariates": 4, "known": 6, "heads": 8, "context": 40, "batch": 4}):
        model, inputs = made(**options)
        with Count() as count, torch.no_grad():
            model(**inputs)
        counts.append(count.calls)
    assert counts[0] == counts[1] > 20


def test_it_needs_no_statics_no_covariates_and_nothing_known_ahead():
    model = TemporalFusionTransformer(Variables(), HORIZON, width=8, heads=2).eval()
    outputs = model(torch.randn(3, CONTEXT, 1), output_attentions=True)
    assert outputs["quantiles"].shape == (3, HORIZON, 1, len(QUANTILES))
    assert outputs["static_weights"].shape == (3, 0)
    torch.testing.assert_close(outputs["future_weights"], torch.ones(3, HORIZON, 1))


@pytest.mark.parametrize("season_skip", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_gives_finite_gradients(dtype, season_skip):
    model, inputs = made(season_skip=season_skip)
    truth = torch.randn(3, HORIZON, 2)
    exact = pinball(model(**inputs), truth)
    with torch.autocast("cpu", dtype=dtype):
        outputs = model.train()(**inputs)
    loss = pinball(outputs, truth)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with torch.autocast("cpu", dtype=dtype):
        near = pinball(model.eval()(**inputs), truth)
    torch.testing.assert_close(near.float(), exact, atol=0.05, rtol=0.05)


def test_dropout_follows_the_seed_and_ends_with_training():
    model, inputs = made(dropout=0.3)
    calm = model(**inputs)["quantiles"]
    assert torch.equal(model(**inputs)["quantiles"], calm)
    model.train()
    answers = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        answers.append(model(**inputs)["quantiles"])
    assert torch.equal(answers[0], answers[1])
    assert not torch.allclose(answers[0], answers[2])


def test_without_dropout_training_and_evaluation_agree():
    model, inputs = made(dropout=0.0)
    trained = model.train()(**inputs)["quantiles"].sort(-1).values
    torch.testing.assert_close(trained, model.eval()(**inputs)["quantiles"])


def test_gradients_of_gradients_exist():
    model, inputs = made(dropout=0.2)
    loss = pinball(model.train()(**inputs), torch.randn(3, HORIZON, 2)) + model.head.bias.square().sum()
    # The LSTM of PyTorch has no second derivative on a CPU: what stands behind it has.
    learned = [*model.enrichment.parameters(), *model.attention.parameters(), *model.head.parameters()]
    gradients = torch.autograd.grad(loss, learned, create_graph=True)
    products = torch.autograd.grad(sum(g.square().sum() for g in gradients), learned, allow_unused=True)
    assert all(p is None or p.isfinite().all() for p in products)
    assert max(p.abs().max() for p in products if p is not None) > 0


def test_it_learns_a_wave_from_its_past_and_calendar():
    torch.manual_seed(0)
    step = torch.arange(400.0)
    series = torch.stack([torch.sin(step / 4), torch.cos(step / 4).abs()], dim=1)
    phase = torch.stack([torch.sin(step / 4), torch.cos(step / 4)], dim=1)
    windows, features = (x.unfold(0, CONTEXT + HORIZON, 1).transpose(1, 2) for x in (series, phase))
    model = TemporalFusionTransformer(Variables(2, 0, 2), HORIZON, (0.1, 0.5, 0.9), width=16, heads=4, dropout=0.05)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        rows = torch.randint(len(windows), (32,))
        x, known = windows[rows], features[rows]
        past, future = known.split([CONTEXT, HORIZON], dim=1)
        outputs = model(x[:, :CONTEXT], past_time_features=past, future_time_features=future)
        loss = pinball(outputs, x[:, CONTEXT:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])


def test_inputs_that_the_model_was_not_built_for_are_refused():
    model, inputs = made()
    with pytest.raises(ValueError, match="built for 5 past inputs and is given 4"):
        model(**{name: x for name, x in inputs.items() if name != "past_covariates"})
    with pytest.raises(ValueError, match="forecasts 5 steps and is given 4 known ahead"):
        model(**{**inputs, "future_time_features": inputs["future_time_features"][:, 1:]})
    with pytest.raises(ValueError, match="built for 2 categorical statics and is given 0"):
        model(**{name: x for name, x in inputs.items() if name != "static_categorical_features"})
    with pytest.raises(ValueError, match="width 10 is not a multiple of 4 heads"):
        TemporalFusionTransformer(Variables(), 5, width=10, heads=4)
    with pytest.raises(ValueError, match="do not ascend"):
        TemporalFusionTransformer(Variables(), 5, quantiles=(0.5, 0.1))

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trainkit import LossOutput, UsageError, hookimpl, stepsums
from trainkit.testing import LossConformance
from trainkit.testing.tiny import tiny_run
from trainkit_loss_variance_aware.formulas import (
    alpha_beta,
    contrast,
    directional,
    similarities,
    variability,
)
from trainkit_loss_variance_aware.variance_aware import VarianceAware

FEATURES = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(3))


class Terms(nn.Module):
    """Give terms out of one tensor: `values` [terms] are means over 4 items."""

    def __init__(self, names: tuple[str, ...] = ("base", "l2", "align"), **weights: float) -> None:
        super().__init__()
        self.names, self.own = names, {"base": 1.0, "l2": 0.01, "align": 0.1, **weights}

    def forward(self, values: Tensor) -> LossOutput:
        terms = {name: (4 * value, 4) for name, value in zip(self.names, values, strict=True)}
        weights = {name: self.own[name] for name in self.names}
        total = sum(weights[name] * pair[0] for name, pair in terms.items())
        return LossOutput(total, 4, terms=terms, weights=weights)


class Contrastive(nn.Module):
    """Be a classification loss with an alignment, as element-combination is one."""

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        visual_features: Tensor | None = None,
        structural_features: Tensor | None = None,
    ) -> LossOutput:
        count = (labels != -100).sum()
        nll = nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum")
        terms = {"base": (nll, count)}
        if visual_features is not None and structural_features is not None:
            similarity = similarities(visual_features, structural_features)
            terms["align"] = (torch.stack(contrast(similarity, 0.07)).mean() * count, count)
        weights = {"base": 1.0, "align": 0.1}
        return LossOutput(sum(weights[name] * term for name, (term, _) in terms.items()), count, terms=terms)


class _Aligned(LossConformance):
    component = "variance-aware"
    decomposes = False

    def inputs(self):
        labels = torch.tensor([[1, 2, 0], [3, -100, -100], [6, 5, 4], [0, 1, -100], [2, 2, 2], [4, -100, -100]])
        logits = torch.randn(6, 3, 7, generator=torch.Generator().manual_seed(1))
        values = {"logits": logits, "labels": labels}
        return {**values, "visual_features": FEATURES[0], "structural_features": FEATURES[1]}

    def build(self, extra=None, **runtime):
        return super().build({"main": Contrastive(), **(extra or {})}, **runtime)

    def predictions(self, values):
        return {name: value for name, value in values.items() if name == "logits" or name.endswith("features")}


class TestAlphaBeta(_Aligned):
    pass


class TestDirectional(_Aligned):
    options = {"mode": "directional"}


class TestCov(_Aligned):
    options = {"mode": "cov", "terms": ("base", "align")}


class TestEveryDefault(LossConformance):
    component = "variance-aware"


class TestWithoutAlignment(LossConformance):
    component = "variance-aware"
    options = {"main": {"use": "cross-entropy", "label_smoothing": 0.1}}


def step(loss: nn.Module, *batches: object) -> LossOutput:
    """Train one optimizer step over micro-batches; return the last output."""
    for batch in batches:
        values = batch if isinstance(batch, dict) else {"values": torch.tensor(batch, requires_grad=True)}
        output = loss(**values)
        loss.keep(0)
    loss.advance()
    return output


def weights(loss: nn.Module, *values: float) -> dict[str, float]:
    return {name: float(weight) for name, weight in loss(values=torch.tensor(values)).weights.items()}


@pytest.mark.parametrize(
    ("main", "align", "expected"),
    [
        ((1.0, 3.0), (5.0, 7.0), (0.75, 0.6)),
        ((1.0, 7.0), (1.0, 3.0), (0.55, 0.92)),
        ((2.0, 2.0), (1.0, 3.0), (1.0, 0.2)),
    ],
    ids=["equal variances", "9 to 1", "main constant"],
)
def test_alpha_and_beta_have_the_known_values(main, align, expected):
    found = alpha_beta(torch.tensor(main), torch.tensor(align), "raw")
    assert [float(weight) for weight in found] == pytest.approx(expected, abs=1e-6)


def test_cov2_knows_no_units():
    """A hundred times the same values is the same to it; raw variances would give (0.5, 1)."""
    values = torch.tensor([1.0, 1.5, 0.7, 1.2])
    assert [float(w) for w in alpha_beta(100 * values, values)] == pytest.approx([0.75, 0.6], abs=1e-5)
    assert [float(w) for w in alpha_beta(100 * values, values, "raw")] == pytest.approx([0.5, 1.0], abs=1e-3)


def test_weights_are_those_of_the_last_full_window():
    loss = VarianceAware(Terms(), window=3, scale="raw")
    generator = np.random.default_rng(0)
    history = generator.uniform(1, 2, (8, 3)).astype(np.float32)
    for seen, row in enumerate(history):
        a, b = 1.0, 0.5
        if seen >= 3:
            # The main part is the base alone: l2 keeps its own weight outside.
            main, align = history[seen - 3 : seen, 0].var(), history[seen - 3 : seen, 2].var()
            rho = main / (main + align + 1e-8)
            a, b = 0.5 + 0.5 * (1 - rho), 0.2 + 0.8 * rho
        output = step(loss, row)
        assert {n: float(w) for n, w in output.weights.items()} == pytest.approx({"base": a, "l2": 0.01, "align": b})
        expected = 4 * (a * row[0] + 0.01 * row[1] + b * row[2])
        assert float(output.sum.detach()) == pytest.approx(expected, rel=1e-5)
    assert int(loss.rule.seen) == 8


def test_weights_carry_no_gradient_and_terms_do():
    loss = VarianceAware(Terms(), window=2)
    step(loss, (1.0, 1.0, 2.0)), step(loss, (3.0, 1.0, 2.5))
    values = torch.tensor([1.0, 1.0, 1.0], requires_grad=True)
    output = loss(values=values)
    output.sum.backward()
    assert values.grad.tolist() == pytest.approx([4 * float(w) for w in output.weights.values()])
    assert output.terms["align"][0].requires_grad


def test_memory_advances_once_a_step_over_its_micro_batches():
    whole, halves = (VarianceAware(Terms(), window=4) for _ in range(2))
    step(whole, (2.0, 0.0, 3.0))
    step(halves, (1.0, 0.0, 2.0), (3.0, 0.0, 4.0))
    assert halves.rule.history[:, 0].tolist() == [2.0, 3.0]
    assert torch.equal(whole.rule.history, halves.rule.history)
    assert int(halves.rule.seen) == 1


def test_counts_below_one_count_as_they_are():
    """Weighted slots may count a tenth each: a mean is a mean."""
    loss = VarianceAware(Terms(), window=4)
    loss._sums.put({"main": (torch.tensor(0.2), 0.1), "align": (torch.tensor(0.3), 0.1)})
    loss.keep()
    loss.advance()
    assert loss.rule.history[:, 0].tolist() == pytest.approx([2.0, 3.0])


def test_ranks_are_averaged(monkeypatch):
    """The other rank has a mean of 6 over 4 items where this one has 2."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(stepsums, "on_all_ranks", lambda sums: sums)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.mul_(4 if tensor > 4 else 2))
    loss = VarianceAware(Terms(), window=4)
    step(loss, (2.0, 0.0, 3.0))
    assert loss.rule.history[:, 0].tolist() == [4.0, 6.0]


def test_state_resumes_in_the_middle_of_everything():
    rows = np.random.default_rng(1).uniform(1, 2, (9, 3)).astype(np.float32)
    for options in ({"window": 3}, {"mode": "cov", "terms": ("base", "align")}):
        loss, resumed = VarianceAware(Terms(), **options), VarianceAware(Terms(), **options)
        for row in rows[:5]:
            step(loss, row)
        resumed.load_state_dict(copy.deepcopy(loss.state_dict()))
        for row in rows[5:]:
            assert torch.equal(step(loss, row).sum, step(resumed, row).sum)
        assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in loss.state_dict().items())


def test_evaluation_uses_the_weights_of_the_beginning():
    loss = VarianceAware(Terms(), window=2)
    step(loss, (1.0, 1.0, 2.0)), step(loss, (3.0, 1.0, 2.5))
    assert weights(loss, 1, 1, 1) != {"base": 1.0, "l2": 0.01, "align": 0.5}
    assert weights(loss.eval(), 1, 1, 1) == {"base": 1.0, "l2": 0.01, "align": 0.5}
    before = copy.deepcopy(loss.state_dict())
    step(loss, (9.0, 9.0, 9.0))
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


def test_a_loss_without_alignment_is_passed_on_and_named():
    inner = Terms(("base", "l2"))
    loss = VarianceAware(inner)
    output = step(loss, (2.0, 5.0))
    assert float(output.sum.detach()) == float(inner(torch.tensor([2.0, 5.0])).sum)
    assert output.inactive == ("align",)
    assert int(loss.rule.seen) == 0


def test_directions_of_a_symmetric_similarity_weigh_the_same():
    features = torch.nn.functional.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert directional(variability(similarities(features, features))).tolist() == pytest.approx([1.0, 1.0])
    assert directional(torch.zeros(2)).tolist() == [1.0, 1.0]


def test_the_direction_that_varies_more_weighs_more():
    """Rows are constant, columns are not: all weight goes to the direction of the columns."""
    similarity = torch.tensor([[0.1, 0.1], [0.9, 0.9]])
    assert variability(similarity).tolist() == pytest.approx([0.0, 0.16])
    assert directional(variability(similarity)).tolist() == pytest.approx([0.0, 2.0])


def test_contrast_has_the_known_value():
    i2t, t2i = contrast(torch.eye(2), 1.0)
    assert float(i2t.mean()) == pytest.approx(0.313262, abs=1e-6)
    assert float(t2i.mean()) == pytest.approx(0.313262, abs=1e-6)


def test_directional_follows_a_naive_moving_average():
    values = _Aligned().inputs()
    loss = VarianceAware(Contrastive(), mode="directional")
    average = np.zeros(2)
    for seed in range(4):
        visual, structural = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(seed))
        batch = {**values, "visual_features": visual, "structural_features": structural}
        w = 2 * average / average.sum() if seed else np.ones(2)
        output = step(loss, batch)
        v, s = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (visual, structural))
        cosines = v @ s.T
        logs = [np.log(np.exp(c / 0.07).sum(1)) - np.diag(c / 0.07) for c in (cosines, cosines.T)]
        base = float(output.parts["base"][0] / output.count)
        # `Contrastive` names no weights: its terms count once each.
        expected = base + (w[0] * logs[0].mean() + w[1] * logs[1].mean()) / 2
        assert float(output.sum.detach() / output.count) == pytest.approx(expected, rel=1e-4)
        average = 0.9 * average + 0.1 * np.array([cosines.var(axis=1).mean(), cosines.var(axis=0).mean()])


def test_directional_without_features_is_passed_on():
    values = {k: v for k, v in _Aligned().inputs().items() if not k.endswith("features")}
    output = VarianceAware(Contrastive(), mode="directional")(**values)
    assert output.inactive == ("align_i2t", "align_t2i")
    assert float(output.sum) == float(Contrastive()(**values).sum)


def test_cov_has_the_published_weights():
    loss = VarianceAware(Terms(("base", "align")), mode="cov", terms=("base", "align"))
    assert weights(loss, 1, 1) == {"base": 0.5, "align": 0.5}
    for row in ((1.0, 10.0), (0.8, 9.0), (0.9, 11.0), (0.7, 10.0)):
        step(loss, row)
    assert weights(loss, 1, 1) == pytest.approx({"base": 0.565287, "align": 0.434713}, abs=1e-6)


def test_cov_agrees_with_a_naive_history():
    rows = np.random.default_rng(2).uniform(0.5, 3, (12, 3))
    loss = VarianceAware(Terms(), mode="cov", terms=("base", "l2", "align"))
    for row in rows:
        step(loss, row.astype(np.float32))
    ratios = np.array([row / (rows[:t].mean(0) if t else row) for t, row in enumerate(rows)])
    expected = ratios.std(0) / ratios.mean(0)
    assert list(weights(loss, 1, 1, 1).values()) == pytest.approx(list(expected / expected.sum()), rel=1e-5)


def test_cov_leaves_other_terms_alone_and_names_missing_ones():
    loss = VarianceAware(Terms(), mode="cov", terms=("base", "align", "context"))
    output = step(loss, (1.0, 2.0, 3.0))
    assert {n: float(w) for n, w in output.weights.items()} == {"base": 0.5, "l2": 0.01, "align": 0.5}
    assert output.inactive == ("context",)


def test_dynamic_weightings_do_not_stack():
    with pytest.raises(UsageError, match="cannot weigh a loss that weighs its terms itself: VarianceAware"):
        VarianceAware(VarianceAware(Terms()))


class Measured(nn.Module):
    """Split a classification loss into two terms, and note what the loss around it had learned at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, logits: Tensor, labels: Tensor) -> LossOutput:
        count = (labels != -100).sum()
        nll = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        square = (logits.square().mean(-1) * (labels != -100)).sum()
        return LossOutput(nll + square, count, terms={"base": (nll, count), "align": (square, count)})

    @hookimpl
    def on_step(self) -> None:
        self.steps += 1


def test_a_run_advances_it_once_a_step_and_the_inner_loss_hears_too():
    from trainkit.loop import train

    inner = Measured()
    loss = VarianceAware(inner, window=3)
    run = tiny_run({"loop.accumulate": 2, "loop.batch_size": 2}, loss=loss)
    train(run)
    assert run.moment.step == 12
    assert int(loss.rule.seen) == inner.steps == 12
    assert math.isfinite(float(loss.rule.history.sum()))

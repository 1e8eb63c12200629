from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from trainkit import LossOutput, UsageError
from trainkit.testing import LossConformance
from trainkit.testing.tiny import tiny_run
from trainkit_loss_modality_weighting.formulas import (
    MODALITIES,
    PRIORS,
    Predictor,
    barrier,
    by_uncertainty,
    describe,
    kendall,
    renormalised,
)
from trainkit_loss_modality_weighting.modality_weighting import ModalityWeighting

SMALL, LARGE = (torch.tensor(PRIORS[name]) for name in ("small", "large"))
ALL = torch.ones(4)
FEATURES = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(3))


class Terms(nn.Module):
    """Give terms out of one tensor: `values` [terms] are means over 4 items."""

    def __init__(self, *names: str, **off: float) -> None:
        super().__init__()
        self.names, self.off = names, off

    def forward(self, values: Tensor) -> LossOutput:
        terms = {name: (4 * value, 4) for name, value in zip(self.names, values, strict=True)}
        weights = {name: 0.5 if name == "l2" else 1.0 for name in self.names} | self.off
        total = sum(weights[name] * pair[0] for name, pair in terms.items())
        return LossOutput(total, 4, terms=terms, weights=weights)


class Classified(nn.Module):
    """Be a classification loss of two terms, as element-combination is one."""

    def forward(self, logits: Tensor, labels: Tensor) -> LossOutput:
        count = (labels != -100).sum()
        nll = nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum")
        square = (logits.float().square().mean(-1) * (labels != -100)).sum()
        return LossOutput(nll + square, count, terms={"base": (nll, count), "pointer": (square, count)})


class _Weighed(LossConformance):
    component = "modality-weighting"

    def build(self, extra=None, **runtime):
        return super().build({"main": Classified(), **(extra or {})}, **runtime)

    def inputs(self):
        return super().inputs() | self.features()

    def features(self):
        return {}


class TestFixed(_Weighed):
    pass


class TestUncertainty(_Weighed):
    options = {"weighting": "uncertainty"}


class TestPredictor(_Weighed):
    options = {"weighting": "predictor", "width": 5}

    def features(self):
        visual, structural = torch.randn(2, 6, 10, generator=torch.Generator().manual_seed(2))
        return {"visual_features": visual, "structural_features": structural}


class TestEveryDefault(LossConformance):
    component = "modality-weighting"


class TestAroundCrossEntropy(LossConformance):
    component = "modality-weighting"
    options = {"main": "cross-entropy"}


def mean_and_weights(loss: nn.Module, values: tuple[float, ...], **more: Tensor) -> tuple[float, dict[str, float]]:
    output = loss(values=torch.tensor(values), **more)
    return float(output.sum.detach() / output.count), {name: float(weight) for name, weight in output.weights.items()}


@pytest.mark.parametrize(("priors", "weights"), [("small", (0.4, 0.4, 0.2, 0.0)), ("large", (0.35, 0.35, 0.2, 0.1))])
def test_fixed_weights_are_the_priors(priors, weights):
    mean, found = mean_and_weights(
        ModalityWeighting(Terms("base", "pointer", "geometry", "aesthetic", "l2"), priors=priors), (1, 2, 3, 4, 5)
    )
    assert found == pytest.approx(
        dict(zip(("base", "pointer", "geometry", "aesthetic", "l2"), (*weights, 0.5), strict=True))
    )
    assert mean == pytest.approx(sum(w * v for w, v in zip(weights, (1, 2, 3, 4), strict=True)) + 2.5, rel=1e-6)


def test_an_absent_modality_is_dropped_and_the_rest_renormalised():
    loss = ModalityWeighting(Terms("base", "geometry"), priors="large")
    output = loss(values=torch.tensor([1.0, 2.0]))
    assert {n: float(w) for n, w in output.weights.items()} == pytest.approx(
        {"base": 0.35 / 0.55, "geometry": 0.2 / 0.55}
    )
    assert output.inactive == ("aesthetic", "structural")
    assert renormalised(LARGE, torch.zeros(4)).tolist() == [0, 0, 0, 0]


def test_a_term_that_the_inner_loss_switched_off_is_not_missed():
    output = ModalityWeighting(Terms("base", "pointer", geometry=0.0))(values=torch.tensor([1.0, 2.0]))
    assert output.inactive == ()


def test_terms_go_by_other_names_too():
    assert mean_and_weights(ModalityWeighting(Terms("diff", "element", "geom")), (1, 1, 1))[1] == pytest.approx(
        {"diff": 0.4, "element": 0.4, "geom": 0.2}
    )
    loss = ModalityWeighting(Terms("base", "tokens"), terms={"visual": "tokens"})
    output = loss(values=torch.tensor([1.0, 1.0]))
    assert output.weights == {"base": 1.0, "tokens": 1.0}


def test_a_loss_without_any_modality_is_passed_on():
    inner = Terms("l2", "aesthetic")
    output = ModalityWeighting(inner)(values=torch.tensor([3.0, 1.0]))
    assert float(output.sum) == float(inner(torch.tensor([3.0, 1.0])).sum)


def test_uncertain_weights_have_the_worked_out_values():
    """s = (0, ln 2, 0, .): precisions 1, 1/2, 1 with the mean 5/6 over the three that are present."""
    s = torch.tensor([0.0, math.log(2), 0.0, 7.0])
    present = torch.tensor([1.0, 1.0, 1.0, 0.0])
    expected = [0.4 * 6 / 5, 0.4 * 3 / 5, 0.2 * 6 / 5, 0]
    assert by_uncertainty(SMALL, s, present).tolist() == pytest.approx(expected, rel=1e-6)
    assert by_uncertainty(SMALL, torch.zeros(4), ALL).tolist() == pytest.approx(SMALL.tolist())


def test_log_variances_rest_where_kendall_and_gal_say():
    losses = torch.tensor([2.0, 0.5, 3.0, 1.0])
    s = (2 * LARGE * losses).log().requires_grad_()
    kendall(LARGE, s, losses).backward()
    assert s.grad.tolist() == pytest.approx([0.0] * 4, abs=1e-6)


def test_uncertainty_adds_half_the_log_variances_and_only_they_learn_from_it():
    values = (2.0, 0.5, 3.0)
    loss = ModalityWeighting(Terms("base", "pointer", "geometry"), weighting="uncertainty")
    with torch.no_grad():
        loss.log_variances.copy_(torch.tensor([0.3, -0.2, 0.1, 3.0]))
    s = loss.log_variances.detach()
    weights = by_uncertainty(SMALL, s, torch.tensor([1.0, 1.0, 1.0, 0.0]))
    leaf = torch.tensor(values, requires_grad=True)
    output = loss(values=leaf)
    expected = float((weights[:3] * leaf.detach()).sum() + s[:3].sum() / 2)
    assert float(output.sum.detach() / output.count) == pytest.approx(expected, rel=1e-6)
    (output.sum / output.count).backward()
    assert leaf.grad.tolist() == pytest.approx(weights[:3].tolist())
    naive = [-w * math.exp(-float(si)) * v + 0.5 for w, si, v in zip((0.4, 0.4, 0.2), s[:3], values, strict=True)]
    assert loss.log_variances.grad.tolist() == pytest.approx([*naive, 0.0], rel=1e-5)


def test_log_variances_learn_to_their_rest_and_stay_in_bounds():
    loss = ModalityWeighting(Terms("base", "pointer", "geometry"), weighting="uncertainty")
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
    values = torch.tensor([2.0, 0.5, 1e-9])
    for _ in range(200):
        output = loss(values=values)
        (output.sum / output.count).backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.on_step()
    expected = [math.log(2 * 0.4 * 2), math.log(2 * 0.4 * 0.5), -5.0, 0.0]
    assert loss.log_variances.tolist() == pytest.approx(expected, abs=1e-4)


def test_features_are_described_by_their_values_and_variances():
    visual, structural = FEATURES
    described = describe(visual, structural, 10)
    assert described.shape == (3, 22)
    assert torch.equal(described[:, :20], torch.cat([visual, structural], dim=1))
    assert torch.allclose(described[:, 20], visual.var(1, correction=0))
    assert torch.allclose(describe(visual, structural, 5)[:, :5], visual.view(3, 5, 2).mean(-1))
    assert describe(visual, structural, 64).shape == (3, 130)


def test_an_untrained_predictor_answers_with_the_priors():
    predictor = Predictor(5)
    assert predictor(*FEATURES, LARGE, ALL).tolist() == pytest.approx(LARGE.tolist())
    present = torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert predictor(*FEATURES, LARGE, present).tolist() == pytest.approx([0.35 / 0.55, 0, 0.2 / 0.55, 0])


def predicting(barrier_weight: float) -> dict[str, float]:
    """Return the weights after training the predictor on terms of 0.1 and 2."""
    torch.manual_seed(0)
    loss = ModalityWeighting(Terms("base", "pointer"), weighting="predictor", width=5, barrier=barrier_weight)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.01)
    features = {"visual_features": FEATURES[0], "structural_features": FEATURES[1]}
    for _ in range(300):
        output = loss(values=torch.tensor([0.1, 2.0], requires_grad=True), **features)
        (output.sum / output.count).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: float(weight) for name, weight in output.weights.items()}


def test_the_barrier_keeps_a_weight_off_zero():
    """Without it the larger term's weight vanishes; with it the weight is near b / (difference of the terms)."""
    assert predicting(1e-9)["pointer"] < 1e-3
    assert predicting(0.1)["pointer"] == pytest.approx(0.0499, abs=1e-3)


def test_a_barrier_of_zero_stops_the_gradient():
    assert predicting(0.0) == pytest.approx({"base": 0.5, "pointer": 0.5})
    assert float(barrier(torch.tensor([0.5, 0.25, 0.25, 0.0]))) == pytest.approx(math.log(32))


def test_a_predictor_is_known_to_the_optimizer_before_it_saw_a_batch():
    from trainkit.compose import parameter_groups

    loss = ModalityWeighting(Terms("base"), weighting="predictor")
    (group,) = parameter_groups({}, loss)
    assert sum(parameter.numel() for _, parameter in group["params"]) == 258 * 64 + 64 + 64 * 4 + 4
    assert group["weight_decay"] == 0


def test_a_predictor_without_features_takes_the_priors_and_says_so():
    output = ModalityWeighting(Terms("base", "pointer", "geometry"), weighting="predictor")(values=torch.ones(3))
    assert [float(weight) for weight in output.weights.values()] == pytest.approx([0.4, 0.4, 0.2])
    assert output.inactive == ("predictor",)


def test_the_model_gets_no_gradient_through_the_weights():
    visual = FEATURES[0].clone().requires_grad_()
    loss = ModalityWeighting(Terms("base", "pointer"), weighting="predictor", width=5)
    output = loss(values=torch.ones(2, requires_grad=True), visual_features=visual, structural_features=FEATURES[1])
    output.sum.backward()
    assert visual.grad is None
    assert loss.predictor.layers[-1].bias.grad is not None


def test_evaluation_uses_the_priors():
    loss = ModalityWeighting(Terms("base", "pointer"), weighting="uncertainty").eval()
    with torch.no_grad():
        loss.log_variances.copy_(torch.tensor([2.0, -2.0, 0.0, 0.0]))
    assert mean_and_weights(loss, (1, 3)) == (2.0, {"base": 0.5, "pointer": 0.5})


@pytest.mark.parametrize(("stages", "on_from"), [(1, 0), (2, 1), (3, 2), (5, 2)])
def test_weights_begin_with_their_stage_and_at_the_latest_with_the_last(stages, on_from):
    loss = ModalityWeighting(Terms("base", "pointer"), from_stage=3)
    for index in range(stages):
        run = SimpleNamespace(moment=SimpleNamespace(stage=index), stages=[None] * stages)
        loss.on_stage_start(run)
        expected = 0.5 if index >= on_from else 1.0
        assert mean_and_weights(loss, (1, 1))[1] == {"base": expected, "pointer": expected}
    resumed = ModalityWeighting(Terms("base", "pointer"), from_stage=3)
    resumed.on_run_start(run)
    assert resumed.is_on == loss.is_on


def test_learned_weights_do_not_stack():
    inner = ModalityWeighting(Terms("base"), weighting="uncertainty")
    with pytest.raises(UsageError, match="cannot learn weights over a loss that does so itself"):
        ModalityWeighting(inner, weighting="predictor")
    assert ModalityWeighting(inner).main is inner


def test_a_run_trains_the_log_variances_and_a_checkpoint_has_them():
    from trainkit.loop import train

    loss = ModalityWeighting(Classified(), weighting="uncertainty")
    train(tiny_run({"optimizer.lr": 0.05}, loss=loss))
    state = loss.state_dict()
    moved = dict(zip(MODALITIES, state["log_variances"].tolist(), strict=True))
    assert moved["visual"] != 0
    assert moved["structural"] != 0
    assert moved["aesthetic"] == 0
    fresh = ModalityWeighting(Classified(), weighting="uncertainty")
    fresh.load_state_dict(copy.deepcopy(state))
    assert torch.equal(fresh.log_variances, loss.log_variances)

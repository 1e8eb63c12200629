from __future__ import annotations

import copy
import logging
import math

import pytest
import torch
from trainkit.testing import LossConformance
from trainkit_loss_multitask.multitask import (
    Multitask,
    clamped,
    divergence_from_marginal,
    property_losses,
    token_losses,
    uncertainty_weight,
)

LOGITS = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([[0, 1, 2, -100], [3, 4, -100, -100], [0, 0, 0, 1]])
PROPS_LOGITS, PROPS = torch.tensor([[0.5, -1.0], [2.0, 0.0], [-0.3, 0.1]]), torch.tensor([[1.0, 0], [1, 1], [0, 0]])


class TestMultitask(LossConformance):
    component = "multitask"
    decomposes = False


class TestMultitaskOfTermsThatDecompose(LossConformance):
    component = "multitask"
    options = {"diversity_weight": 0.0, "label_smoothing": 0.1}


class TestMultitaskUncertainty(LossConformance):
    component = "multitask"
    options = {"diversity_weight": 0.0, "weighting": "uncertainty"}


def test_total_is_the_weighted_sum_of_its_parts():
    output = Multitask(1.0, 0.2, 0.1)(LOGITS, LABELS, PROPS_LOGITS, PROPS)
    assert set(output.parts) == {"tokens", "properties", "diversity", "nll"}
    parts = {name: float(total) / float(count) for name, (total, count) in output.parts.items()}
    total = parts["tokens"] + 0.2 * parts["properties"] + 0.1 * parts["diversity"]
    assert float(output.sum / output.count) == pytest.approx(total, rel=1e-6)
    assert output.weights == {"tokens": 1.0, "properties": 0.2, "diversity": 0.1}


def test_tokens_are_those_of_cross_entropy():
    losses, _ = token_losses(LOGITS.log_softmax(-1), LABELS, 0.1)
    expected = torch.nn.functional.cross_entropy(
        LOGITS.flatten(0, 1), LABELS.flatten(), label_smoothing=0.1, reduction="sum"
    )
    assert float(losses.sum()) == pytest.approx(float(expected), rel=1e-6)


def test_properties_are_the_mean_over_flags():
    expected = torch.nn.functional.binary_cross_entropy(PROPS_LOGITS.sigmoid(), PROPS, reduction="none").mean(1)
    assert torch.allclose(property_losses(PROPS_LOGITS, PROPS), expected)


def test_diversity_of_a_skewed_prediction():
    """Against an even marginal the divergence is ln 4 minus the entropy of the mean prediction."""
    prediction = torch.tensor([[[0.7, 0.1, 0.1, 0.1]]]).log()
    even = torch.full((4,), 1000)
    assert float(divergence_from_marginal(prediction, torch.ones(1, 1, dtype=torch.bool), even)) == pytest.approx(
        0.445846, abs=1e-6
    )


def test_diversity_is_zero_where_symbols_are_predicted_as_often_as_they_occur():
    counts = torch.tensor([699_999, 99_999, 99_999, 99_999])
    prediction = torch.tensor([[[0.7, 0.1, 0.1, 0.1]]]).log()
    real = torch.ones(1, 1, dtype=torch.bool)
    assert float(divergence_from_marginal(prediction, real, counts)) == pytest.approx(0.0, abs=1e-6)


def test_uncertainty_weighting_has_the_published_minimum():
    """With s = ln(2 L) the term exp(-s) L + s / 2 is least, and its value is 1/2 + ln(2 L) / 2."""
    s = torch.tensor(math.log(4.0), requires_grad=True)
    weight = uncertainty_weight(s, 1.0)
    total = weight * 2.0 + clamped(s) / 2
    total.backward()
    assert s.grad.item() == pytest.approx(0.0, abs=1e-6)
    assert total.item() == pytest.approx(0.5 + math.log(4.0) / 2)
    assert weight.item() == pytest.approx(0.25)


def test_training_total_with_learned_weights():
    loss = Multitask(diversity_weight=0, weighting="uncertainty")
    torch.nn.init.constant_(loss.log_variances["tokens"], 1.0)
    torch.nn.init.constant_(loss.log_variances["properties"], 9.0)  # clamped to 5
    output = loss(LOGITS, LABELS, PROPS_LOGITS, PROPS)
    tokens, properties = (float(output.parts[name][0]) / 9 for name in ("tokens", "properties"))
    expected = math.exp(-1) * tokens + 0.2 * math.exp(-5) * properties + (1 + 5) / 2
    assert float(output.sum.detach() / output.count) == pytest.approx(expected, rel=1e-6)
    assert float(output.weights["tokens"]) == pytest.approx(math.exp(-1))


def test_learned_weights_are_parameters_and_learn():
    loss = Multitask(weighting="uncertainty")
    assert set(dict(loss.named_parameters())) == {"log_variances.tokens", "log_variances.properties"}
    output = loss(LOGITS, LABELS, PROPS_LOGITS, PROPS)
    (output.sum / output.count).backward()
    assert all(parameter.grad.abs() > 0 for parameter in loss.parameters())


def test_evaluation_uses_the_fixed_weights():
    """A total with learned weights may fall without end: what is monitored is the plain one."""
    loss = Multitask(weighting="uncertainty")
    torch.nn.init.constant_(loss.log_variances["tokens"], 3.0)
    plain = Multitask().eval()(LOGITS, LABELS, PROPS_LOGITS, PROPS)
    assert torch.equal(loss.eval()(LOGITS, LABELS, PROPS_LOGITS, PROPS).sum.detach(), plain.sum.detach())


def test_a_term_without_inputs_is_absent_and_reported_once(caplog):
    loss = Multitask()
    assert loss.inactive == {"tokens", "properties", "diversity"}
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            output = loss(LOGITS, LABELS)
    assert "properties" not in output.parts
    assert "properties" not in output.weights
    assert loss.inactive == {"properties"}
    assert [record.message for record in caplog.records] == [
        "multitask: the batches lack what these terms read: properties"
    ]
    loss(LOGITS, LABELS, PROPS_LOGITS, PROPS)
    assert loss.inactive == set()


def test_a_weight_of_zero_switches_a_term_off():
    output = Multitask(property_weight=0, diversity_weight=0)(LOGITS, LABELS, PROPS_LOGITS, PROPS)
    assert set(output.parts) == {"tokens", "nll"}


def test_label_frequencies_are_counted_in_training_only_and_saved():
    loss = Multitask()
    loss(LOGITS, LABELS)
    assert loss.label_counts.tolist() == [4, 2, 1, 1, 1]
    loss.eval()(LOGITS, LABELS)
    assert loss.label_counts.tolist() == [4, 2, 1, 1, 1]
    fresh = Multitask()
    fresh.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert fresh.label_counts.tolist() == [4, 2, 1, 1, 1]


def test_flags_count_by_the_tokens_of_their_sample():
    """Split between two micro-batches or not, the properties are the same mean."""
    whole = Multitask(diversity_weight=0)(LOGITS, LABELS, PROPS_LOGITS, PROPS).parts["properties"]
    halves = [
        Multitask(diversity_weight=0)(LOGITS[rows], LABELS[rows], PROPS_LOGITS[rows], PROPS[rows]).parts["properties"]
        for rows in (slice(0, 1), slice(1, 3))
    ]
    assert float(whole[0]) == pytest.approx(sum(float(total) for total, _ in halves), rel=1e-6)

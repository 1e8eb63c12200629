from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from trainkit.testing import LossConformance
from trainkit_loss_cross_entropy.cross_entropy import CrossEntropy, cross_entropy, smoothing_at


class TestCrossEntropy(LossConformance):
    component = "cross-entropy"


class TestCrossEntropySmoothed(LossConformance):
    component = "cross-entropy"
    options = {"label_smoothing": 0.1}


class TestCrossEntropyFading(LossConformance):
    component = "cross-entropy"
    options = {"label_smoothing": 0.1, "until": 0.5}


def test_smoothing_stays_or_falls_in_a_line():
    assert [smoothing_at(progress, 0.1, None) for progress in (0, 0.5, 1)] == [0.1, 0.1, 0.1]
    found = [smoothing_at(progress, 0.1, 0.5) for progress in (0, 0.125, 0.25, 0.5, 0.75, 1)]
    assert found == pytest.approx([0.1, 0.075, 0.05, 0, 0, 0])


def test_published_value_of_smoothing():
    losses, likelihoods = cross_entropy(torch.tensor([[2, 1, 0.5, -1]]), torch.tensor([0]), 0.1)
    assert likelihoods.item() == pytest.approx(0.495182, abs=1e-6)
    assert losses.item() == pytest.approx(0.632682, abs=1e-6)


@pytest.mark.parametrize(("classes", "floor"), [(4, 0.348780), (32128, 1.362789)])
def test_smoothed_loss_has_a_floor(classes, floor):
    """The least possible loss is the entropy of the target: predict exactly the target."""
    target = torch.full((classes,), 0.1 / classes, dtype=torch.float64)
    target[0] += 0.9
    losses, _ = cross_entropy(target.log().unsqueeze(0), torch.tensor([0]), 0.1)
    assert losses.item() == pytest.approx(floor, abs=1e-5)


@pytest.mark.parametrize("shape", [(6,), (6, 5), (3, 4, 5)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_pytorch_for_any_leading_shape(shape, smoothing):
    torch.manual_seed(0)
    logits = torch.randn(*shape, 9)
    labels = torch.randint(0, 9, shape).masked_fill(torch.rand(shape) < 0.3, -100)
    output = CrossEntropy(smoothing)(logits, labels)
    expected = functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), label_smoothing=smoothing)
    assert (output.sum / output.count).item() == pytest.approx(expected.item(), rel=1e-6)
    assert output.per_sample.shape == shape[:1]


def test_evaluation_is_not_smoothed():
    logits, labels = torch.tensor([[2, 1, 0.5, -1]]), torch.tensor([0])
    assert CrossEntropy(0.1).eval()(logits, labels).sum.item() == pytest.approx(0.495182, abs=1e-6)
    assert CrossEntropy(0.1)(logits, labels).parts["nll"][0].item() == pytest.approx(0.495182, abs=1e-6)


def test_a_symbol_that_is_ruled_out_costs_nothing_elsewhere():
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    assert CrossEntropy()(logits, torch.tensor([0])).sum.item() == pytest.approx(0.693147, abs=1e-6)


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"logits \[2, 3\] do not have the shape of labels \[3\]"):
        CrossEntropy()(torch.zeros(2, 3), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_many_logits_go_in_chunks_and_give_what_few_give(smoothing, monkeypatch):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 4, 5), torch.randint(0, 5, (3, 4))
    found = []
    for elements in (1000, 7):
        monkeypatch.setattr("trainkit.rowlosses.CPU_ELEMENTS", elements)
        leaf = logits.clone().requires_grad_()
        losses, likelihood = cross_entropy(leaf, labels, smoothing)
        assert "Chunked" in str(losses.grad_fn.next_functions) or elements == 1000
        assert not likelihood.requires_grad
        losses.sum().backward()
        found.append((losses.detach(), likelihood, leaf.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)

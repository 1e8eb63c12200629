"""Perplexity against closed forms, and the trap: the mean of the batches' perplexities is another figure."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional
from trainkit.testing import MetricConformance
from trainkit_metric_perplexity.perplexity import Perplexity, likelihood_sums, perplexity_of

IGNORED = -100


def logits_of(shares):
    """Return logits [1, L, 2] whose first class has these likelihoods."""
    shares = torch.tensor(shares, dtype=torch.float64)
    return torch.stack([shares, 1 - shares], dim=-1).log()[None]


class TestPerplexityConformance(MetricConformance):
    component = "perplexity"
    cases = (
        (
            {
                "logits": torch.cat([logits_of([0.5, 0.25, 0.9]), logits_of([0.125, 0.9, 0.9])]),
                "labels": torch.tensor([[0, 0, IGNORED], [0, IGNORED, IGNORED]]),
            },
            # Three real tokens that cost 1, 2 and 3 bits.
            {"perplexity": 4.0, "bits": 2.0},
        ),
    )


@pytest.mark.parametrize(("nats", "expected"), [(0.65, 1.9155), (0.7234, 2.0614), (0.0, 1.0)])
def test_published_values(nats, expected):
    assert perplexity_of(nats) == pytest.approx(expected, abs=5e-5)
    metric = Perplexity()
    metric.update(logits_of([math.exp(-nats)]), torch.tensor([[0]]))
    assert metric.compute()["perplexity"] == pytest.approx(expected, abs=5e-5)


def test_equally_likely_tokens_give_their_number():
    metric = Perplexity()
    metric.update(torch.zeros(2, 3, 50), torch.randint(50, (2, 3)))
    assert metric.compute() == pytest.approx({"perplexity": 50.0, "bits": math.log2(50)})


def test_it_is_not_the_mean_of_the_perplexities_of_batches():
    parts = [(logits_of([0.5] * 9), 9), (logits_of([0.01]), 1)]
    metric = Perplexity()
    singles = []
    for logits, length in parts:
        labels = torch.zeros(1, length, dtype=torch.long)
        metric.update(logits, labels)
        alone = Perplexity()
        alone.update(logits, labels)
        singles.append(alone.compute()["perplexity"])
    assert singles == pytest.approx([2.0, 100.0])
    assert metric.compute()["perplexity"] == pytest.approx(math.exp(0.9 * math.log(2) + 0.1 * math.log(100)))


def test_a_huge_likelihood_is_told_as_infinity_and_its_bits_stay_a_number():
    metric = Perplexity()
    metric.update(torch.tensor([[[1000.0, 0.0]]]), torch.tensor([[1]]))
    found = metric.compute()
    assert found["perplexity"] == math.inf
    assert found["bits"] == pytest.approx(1000 / math.log(2))


def test_what_is_no_number_stays_none():
    metric = Perplexity()
    metric.update(torch.full((1, 1, 2), math.nan), torch.tensor([[0]]))
    assert all(math.isnan(value) for value in metric.compute().values())


def test_a_batch_of_padding_alone_adds_nothing():
    metric = Perplexity()
    metric.update(logits_of([0.25]), torch.tensor([[0]]))
    metric.update(logits_of([0.9, 0.9]), torch.tensor([[IGNORED, IGNORED]]))
    assert metric.compute()["perplexity"] == pytest.approx(4.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_the_softmax(dtype):
    torch.manual_seed(0)
    logits = torch.randn(4, 7, 300).to(dtype)
    labels = torch.randint(300, (4, 7))
    found, tokens = likelihood_sums(logits, labels)
    exact = functional.cross_entropy(logits.double().flatten(0, 1), labels.flatten(), reduction="sum")
    assert (found.item(), tokens.item()) == (pytest.approx(exact.item(), rel=1e-6), 28)


def test_one_label_a_sample_and_logits_that_no_gradient_leaves():
    logits = torch.zeros(3, 4, requires_grad=True)
    metric = Perplexity()
    metric.update(logits, torch.tensor([0, 1, IGNORED]))
    assert metric.compute()["perplexity"] == pytest.approx(4.0)
    assert not any(total.requires_grad for total in metric.sums.values())


def test_logits_of_other_positions_are_refused():
    with pytest.raises(ValueError, match=r"logits have the shape \[2, 4, 5\], labels \[2, 3\]"):
        Perplexity().update(torch.zeros(2, 4, 5), torch.zeros(2, 3, dtype=torch.long))

"""Template robustness against closed forms: what is compared, and what is not."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch.nn import functional
from trainkit.testing import MetricConformance
from trainkit_metric_template_robustness.template_robustness import (
    LONGEST,
    TemplateRobustness,
    likelihoods,
    names_of,
    robustness_of,
)

IGNORED = -100
ASK, TELL = "Ask: {text}", "Tell/say: {text}"


def logits_of(shares):
    """Return logits [B, L, 2] whose first class has these likelihoods."""
    shares = torch.tensor(shares, dtype=torch.float64)
    return torch.stack([shares, 1 - shares], dim=-1).log()


def labels_of(lengths, width):
    """Return labels [B, L] of the first class, the first `lengths` of each row real."""
    return torch.where(torch.arange(width) < torch.tensor(lengths)[:, None], 0, IGNORED)


# Two samples of two tokens and of one, in each template. Bits: 1 + 2 and 3 in the first, so 2 a token; 2 + 3 and 4 in
# the other, so 3 a token; 2.5 over all.
CASE = {
    "logits": logits_of([[0.5, 0.25], [0.125, 0.9], [0.25, 0.125], [0.0625, 0.9]]),
    "labels": labels_of([2, 1, 2, 1], 2),
    "templates": [ASK, ASK, TELL, TELL],
}
EXPECTED = {
    "robustness": 0.5,
    "perplexity": 2**2.5,
    "perplexity/Ask: {text}": 4.0,
    "perplexity/Tell_say: {text}": 8.0,
}


class TestTemplateRobustnessConformance(MetricConformance):
    component = "template-robustness"
    cases = ((CASE, EXPECTED),)


def test_the_score_comes_first_and_nothing_else_is_there():
    metric = TemplateRobustness()
    metric.update(**CASE)
    assert list(metric.compute()) == list(EXPECTED)


def test_it_is_taken_of_sums_not_of_batches():
    metric = TemplateRobustness()
    # One template in one batch of a long and a short sample, the other in two batches: the same tokens cost the same.
    shares = [[0.5] * 9, [0.01] + [0.5] * 8]
    metric.update(logits_of(shares), labels_of([9, 1], 9), [ASK, ASK])
    for row, length in zip(shares, (9, 1), strict=True):
        metric.update(logits_of([row]), labels_of([length], 9), [TELL])
    found = metric.compute()
    assert found["robustness"] == pytest.approx(1.0, abs=1e-12)
    assert found["perplexity/Ask: {text}"] == pytest.approx(math.exp(0.9 * math.log(2) + 0.1 * math.log(100)))


@pytest.mark.parametrize(
    ("rows", "said"),
    [([0, 1], "in one template only"), ([0, 1, 2], "not every sample"), ([0, 2, 3], "not every sample")],
)
def test_what_cannot_be_compared_is_not_a_number_and_is_told_once(rows, said, caplog):
    metric = TemplateRobustness()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            metric.reset()
            metric.update(CASE["logits"][rows], CASE["labels"][rows], [CASE["templates"][row] for row in rows])
            found = metric.compute()
            assert math.isnan(found.pop("robustness"))
            assert set(found) == {"perplexity"}
            assert math.isfinite(found["perplexity"])
    assert len(caplog.records) == 1
    assert said in caplog.text
    assert "task.asked_in = all" in caplog.text


def test_where_nothing_was_seen_nothing_is_told(caplog):
    assert math.isnan(TemplateRobustness().compute()["robustness"])
    assert not caplog.records


def test_perplexities_beyond_numbers_have_a_ratio():
    logits = torch.tensor([[[1000.0, 0.0]], [[1001.0, 0.0]]], dtype=torch.float64)
    metric = TemplateRobustness()
    metric.update(logits, torch.ones(2, 1, dtype=torch.long), [ASK, TELL])
    found = metric.compute()
    assert found["perplexity/Ask: {text}"] == math.inf
    assert found["robustness"] == pytest.approx(math.exp(-1))


def test_a_template_that_is_no_number_leaves_the_others_whole():
    logits = logits_of([[0.5], [0.5]])
    logits[1] = math.nan
    metric = TemplateRobustness()
    metric.update(logits, labels_of([1, 1], 1), [ASK, TELL])
    found = metric.compute()
    assert found["perplexity/Ask: {text}"] == pytest.approx(2.0)
    assert all(math.isnan(found[name]) for name in ("robustness", "perplexity", "perplexity/Tell_say: {text}"))


def test_what_is_no_number_stays_none():
    assert math.isnan(robustness_of([1.0, math.nan]))
    assert math.isnan(robustness_of([math.nan, 1.0]))
    assert math.isnan(robustness_of([1.0]))


def test_memory_does_not_grow_with_the_data():
    metric = TemplateRobustness()
    for _ in range(5):
        metric.update(**CASE)
    assert sum(total.numel() for total in metric.sums.values()) == 6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_the_softmax(dtype):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 7, 300).to(dtype), torch.randint(300, (3, 7))
    labels[1, 4:] = IGNORED
    found, tokens = likelihoods(logits, labels)
    exact = functional.cross_entropy(logits.double().transpose(1, 2), labels, reduction="none").sum(1)
    assert torch.allclose(found, exact, rtol=1e-6)
    assert tokens.tolist() == [7, 4, 7]


def test_one_label_a_sample_and_logits_that_no_gradient_leaves():
    metric = TemplateRobustness()
    metric.update(torch.zeros(2, 4, requires_grad=True), torch.tensor([0, 1]), [ASK, TELL])
    assert metric.compute()["perplexity"] == pytest.approx(4.0)
    assert not any(total.requires_grad for total in metric.sums.values())


def test_logits_of_other_positions_are_refused():
    with pytest.raises(ValueError, match=r"logits have the shape \[2, 4, 5\], labels \[2, 3\]"):
        TemplateRobustness().update(torch.zeros(2, 4, 5), torch.zeros(2, 3, dtype=torch.long), [ASK, TELL])


def test_names_fit_into_a_tag_and_stay_apart():
    long = "Here are examples. " * 9 + "{text}"
    names = list(names_of([ASK, "Ask:\n  {text}", "Ask:\t{text}", TELL, long]).values())
    assert names[:4] == ["Ask: {text}", "Ask: {text} #2", "Ask: {text} #3", "Tell_say: {text}"]
    assert names[4].startswith("Here are examples. Here")
    assert names[4].endswith("examples. {text}")
    assert len(names[4]) == LONGEST

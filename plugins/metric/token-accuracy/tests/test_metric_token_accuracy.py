"""Token accuracy against counts by hand, and the trap: predicting nothing must score nothing."""

from __future__ import annotations

import math

import pytest
import torch
from trainkit.testing import MetricConformance
from trainkit_metric_token_accuracy.token_accuracy import TokenAccuracy

IGNORED = -100


class TestTokenAccuracyConformance(MetricConformance):
    component = "token-accuracy"
    cases = (
        (
            {
                "predictions": torch.tensor([[1, 2, 3, 9], [4, 5, 0, 0], [7, 7, 7, 7]]),
                "labels": torch.tensor([[1, 2, 3, 4], [4, 5, IGNORED, IGNORED], [IGNORED] * 4]),
            },
            {"accuracy": 5 / 6, "exact": 1 / 2},
        ),
    )


def computed(predictions, labels, **options):
    metric = TokenAccuracy(**options)
    metric.update(torch.tensor(predictions), torch.tensor(labels))
    return metric.compute()


@pytest.mark.parametrize(("filler", "options"), [(IGNORED, {}), (0, {"pad_id": 0})])
def test_trap_all_pad_predictions_are_right_nowhere(filler, options):
    labels = [[1, 2, 3, 4, 5, 6, 7, 8, 1, 2] + [filler] * 118]
    assert computed([[0] * 128], labels, **options) == {"accuracy": 0.0, "exact": 0.0}


def test_trap_a_metric_that_counted_padding_would_say_92_percent():
    labels = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 1, 2] + [0] * 118])
    assert (labels == 0).float().mean() == pytest.approx(0.921875)
    metric = TokenAccuracy()
    metric.update(torch.zeros_like(labels), labels)
    assert metric.compute()["accuracy"] == pytest.approx(0.921875), "0 is a token like any other unless pad_id says so"


def test_counts_by_hand():
    results = computed([[1, 2, 3, 9], [4, 5, 0, 0], [7, 7, 7, 7]], [[1, 2, 3, 4], [4, 5, -100, -100], [-100] * 4])
    assert results == {"accuracy": 5 / 6, "exact": 1 / 2}
    assert next(iter(results)) == "accuracy"


def test_one_label_for_each_sample():
    assert computed([1, 0, 2], [1, 1, 2])["accuracy"] == pytest.approx(2 / 3)


def test_sums_do_not_depend_on_the_batches():
    generator = torch.Generator().manual_seed(0)
    predictions, labels = (torch.randint(0, 3, (7, 5), generator=generator) for _ in range(2))
    labels[3:5, 2:] = IGNORED
    whole, parts, merged = TokenAccuracy(), TokenAccuracy(), TokenAccuracy()
    whole.update(predictions, labels)
    for rows in (slice(0, 1), slice(1, 4)):
        parts.update(predictions[rows], labels[rows])
    merged.update(predictions[4:], labels[4:])
    merged.merge(parts.sums)
    assert merged.compute() == whole.compute()


def test_nothing_seen_is_nan_and_reset_forgets():
    metric = TokenAccuracy()
    metric.update(torch.tensor([[1]]), torch.tensor([[1]]))
    metric.reset()
    assert all(math.isnan(value) for value in metric.compute().values())
    assert all(math.isnan(value) for value in computed([[1]], [[IGNORED]]).values())


def test_logits_in_place_of_ids_are_refused():
    with pytest.raises(ValueError, match="token ids at the positions"):
        TokenAccuracy().update(torch.zeros(2, 3, 5), torch.zeros(2, 3, dtype=torch.long))

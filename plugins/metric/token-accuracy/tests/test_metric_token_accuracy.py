"""Token accuracy against counts by hand, and the trap: predicting nothing must score nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trainkit.binding import bind_metric
from trainkit.testing import MetricConformance
from trainkit_metric_token_accuracy.token_accuracy import TokenAccuracy, among_best

IGNORED = -100
TRAP = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2]
WINDOW = 128


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


class TestTokenAccuracyOfSlotsConformance(MetricConformance):
    component = "token-accuracy"
    options = {"pad_id": 0, "top_k": 2}
    cases = (
        (
            {
                "predictions": torch.tensor([[1, 2, 0, 3], [1, 1, 0, 2], [3, 0, 0, 0]]),
                "labels": torch.tensor([[1, 2, 0, IGNORED], [1, 2, 0, 0], [3, 0, 0, 0]]),
                # The right class is best, second, second, third; wherever else it stands is not looked at.
                "logits": torch.tensor(
                    [
                        [[0, 9, 1, 2], [0, 9, 8, 2], [9, 0, 0, 0], [0, 0, 0, 0]],
                        [[9, 8, 1, 2], [8, 9, 7, 2], [9, 0, 0, 0], [9, 0, 0, 0]],
                        [[0, 1, 2, 9], [9, 0, 0, 0], [9, 0, 0, 0], [9, 0, 0, 0]],
                    ]
                ).float(),
                "masked": torch.tensor([[True] * 4, [True] * 4, [False] * 4]),
            },
            {"accuracy": 4 / 5, "exact": 2 / 3, "precision": 4 / 6, "top-2": 3 / 4},
        ),
    )


def computed(predictions, labels, logits=None, masked=None, **options):
    metric = TokenAccuracy(**options)
    metric.update(torch.tensor(predictions), torch.tensor(labels), logits, masked)
    return metric.compute()


@pytest.mark.parametrize(("filler", "options"), [(IGNORED, {}), (0, {"pad_id": 0}), (IGNORED, {"pad_id": 0})])
def test_trap_all_pad_predictions_are_right_nowhere(filler, options):
    results = computed([[0] * WINDOW], [TRAP + [filler] * (WINDOW - len(TRAP))], **options)
    if options:
        assert math.isnan(results.pop("precision")), "nothing real was predicted"
    assert results == {"accuracy": 0.0, "exact": 0.0}


def test_trap_a_metric_that_counted_padding_would_say_92_percent():
    labels = torch.tensor([TRAP + [0] * (WINDOW - len(TRAP))])
    assert len(set(TRAP)) == 8
    assert (labels == 0).float().mean() == pytest.approx(0.921875)
    metric = TokenAccuracy()
    metric.update(torch.zeros_like(labels), labels)
    assert metric.compute()["accuracy"] == pytest.approx(0.921875), "0 is a token like any other unless pad_id says so"


def test_trap_logits_that_know_nothing_find_nothing():
    labels = torch.tensor([TRAP])
    for flat in (torch.zeros(1, 10, 9), torch.full((1, 10, 9), torch.nan)):
        assert not among_best(flat, labels, 8).any()
    assert among_best(torch.zeros(1, 10, 9), labels, 9).all(), "nine of nine classes hold every label"


def test_counts_by_hand():
    results = computed([[1, 2, 3, 9], [4, 5, 0, 0], [7, 7, 7, 7]], [[1, 2, 3, 4], [4, 5, -100, -100], [-100] * 4])
    assert results == {"accuracy": 5 / 6, "exact": 1 / 2}
    assert next(iter(results)) == "accuracy"


def test_what_fills_an_empty_slot_is_a_fault_that_accuracy_alone_does_not_show():
    labels = [[1, 2, 0, 0]]
    assert computed([[1, 2, 0, 0]], labels, pad_id=0) == {"accuracy": 1.0, "exact": 1.0, "precision": 1.0}
    assert computed([[1, 2, 3, 3]], labels, pad_id=0) == {"accuracy": 1.0, "exact": 0.0, "precision": 0.5}


def test_what_is_no_slot_at_all_is_no_fault():
    assert computed([[1, 7]], [[1, IGNORED]], pad_id=0) == {"accuracy": 1.0, "exact": 1.0, "precision": 1.0}


def test_one_label_for_each_sample():
    assert computed([1, 0, 2], [1, 1, 2])["accuracy"] == pytest.approx(2 / 3)


def test_top_k_without_logits_is_nan_and_without_a_mask_counts_all_real_positions():
    logits = torch.tensor([[[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]])
    assert math.isnan(computed([[0, 0]], [[0, 0]], top_k=1)["top-1"])
    assert computed([[0, 0]], [[0, 0]], logits, top_k=1)["top-1"] == 0.5
    assert computed([[0, 0]], [[0, 0]], logits, torch.tensor([[True, False]]), top_k=1)["top-1"] == 1.0


def test_logits_and_mask_are_read_only_where_they_are_given():
    binding = bind_metric(TokenAccuracy())
    assert binding.missing({"predictions", "labels"}) == set()
    assert {name for _, name in binding.optional} == {"logits", "masked"}


@given(st.integers(0, 2**31), st.integers(1, 6))
def test_top_k_agrees_with_torch_where_no_two_logits_are_equal(seed, k):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.stack([torch.randperm(6, generator=generator) for _ in range(12)]).float().reshape(3, 4, 6)
    labels = torch.randint(0, 6, (3, 4), generator=generator)
    by_torch = (logits.topk(k, dim=-1).indices == labels[..., None]).any(-1)
    assert torch.equal(among_best(logits, labels, k), by_torch)


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


def test_logits_of_other_positions_are_refused():
    ids = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="top_k wants logits"):
        TokenAccuracy(top_k=2).update(ids, ids, torch.zeros(2, 4, 5))

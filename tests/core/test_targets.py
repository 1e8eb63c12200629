"""Masked sums by target: they add up over batches, missing values are nowhere, weights keep the scale."""

from __future__ import annotations

import pytest
import torch
from trainkit import UsageError
from trainkit.targets import filled, over_targets, target_names, target_weights

torch.manual_seed(0)
LOSSES, OBSERVED = torch.rand(6, 4, 3), torch.rand(6, 4, 3) < 0.7


@pytest.mark.parametrize("weights", [None, {"a": 3.0}])
def test_sums_and_counts_of_parts_of_a_batch_add_up(weights):
    whole = over_targets(LOSSES, OBSERVED, "abc", weights)
    pieces = [over_targets(LOSSES[rows], OBSERVED[rows], "abc", weights) for rows in (slice(0, 1), slice(1, 6))]
    assert float(sum(piece.sum for piece in pieces)) == pytest.approx(float(whole.sum), rel=1e-6)
    assert sum(int(piece.count) for piece in pieces) == int(whole.count) == int(OBSERVED.sum())
    for name in "abc":
        total = sum(float(piece.parts[name][0]) for piece in pieces)
        assert total == pytest.approx(float(whole.parts[name][0]), rel=1e-6)


def test_parts_are_means_without_weights():
    for place, name in enumerate("abc"):
        total, count = over_targets(LOSSES, OBSERVED, "abc", {"a": 5.0}).parts[name]
        assert float(total / count) == pytest.approx(float(LOSSES[..., place][OBSERVED[..., place]].mean()), rel=1e-6)


def test_a_missing_value_leaves_no_trace_even_if_it_is_not_a_number():
    broken = LOSSES.masked_fill(~OBSERVED, float("nan"))
    assert torch.equal(over_targets(broken, OBSERVED).sum, over_targets(LOSSES, OBSERVED).sum)
    forecast, truth = filled(LOSSES.half(), broken, OBSERVED)
    assert forecast.dtype == torch.float32
    assert torch.equal(truth, LOSSES * OBSERVED)


def test_names_and_weights_are_checked():
    assert target_names(3, None) == ("0", "1", "2")
    assert target_weights(("a", "b"), {"b": 3.0}) == [0.5, 1.5]
    with pytest.raises(ValueError, match="1 target names"):
        target_names(2, ["a"])
    with pytest.raises(UsageError, match="there is no target c"):
        target_weights(("a", "b"), {"c": 1.0})

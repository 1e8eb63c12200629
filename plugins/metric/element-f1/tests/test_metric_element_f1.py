"""Element F1 against counts by hand, and the trap: predicting nothing must score nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainkit.testing import MetricConformance
from trainkit_metric_element_f1.element_f1 import LEVELS, ElementF1, f1, matches


def same(elements):
    return {"base": elements, "key": elements, "path": elements}


class TestElementF1Conformance(MetricConformance):
    component = "element-f1"
    cases = (
        (
            {
                "predicted_elements": [same(["a", "a", "b"]), same(["c"]), same([])],
                "target_elements": [same(["a", "b", "b", "d"]), same(["c", "c"]), same(["d"])],
            },
            {"key-micro": 6 / 11, "key-macro": (4 / 7 + 2 / 3) / 3, "key-precision": 3 / 4, "key-recall": 3 / 7},
        ),
    )


def computed(predicted, target, **options):
    metric = ElementF1(**options)
    metric.update([same(each) for each in predicted], [same(each) for each in target])
    return metric.compute()


TRAP = ["a", "b", "c", "d", "e", "f", "g", "h", "a", "b"]
WINDOW = 128


def test_trap_an_empty_prediction_scores_nothing_and_its_precision_is_undefined():
    results = computed([[]], [TRAP])
    for level in LEVELS:
        assert math.isnan(results.pop(f"{level}-precision"))
        assert {results.pop(f"{level}-{figure}") for figure in ("micro", "macro", "recall")} == {0.0}
    assert not results


def test_trap_a_metric_that_counted_padding_would_praise_a_prediction_of_nothing():
    def padded(elements):
        return set(elements + ["<pad>"] * (WINDOW - len(elements)))

    predicted, target = padded([]), padded(TRAP)
    shared = len(predicted & target)
    assert (shared / len(predicted), shared / len(target)) == (1, pytest.approx(1 / 9))
    assert f1(shared, len(predicted), len(target)) == pytest.approx(0.2)
    assert computed([[]], [TRAP])["key-micro"] == 0.0


def test_trap_in_the_mean_an_undefined_precision_counts_as_nothing():
    results = computed([[], ["a"]], [["a"], ["a"]])
    assert results["key-macro"] == 0.5
    assert results["key-precision"] == 1.0
    assert results["key-recall"] == 0.5


def test_counts_by_hand():
    results = computed([["a", "a", "b"], ["c"]], [["a", "b", "b", "d"], ["c", "c"]])
    assert results["key-micro"] == pytest.approx(2 * 3 / (4 + 6))
    assert results["key-macro"] == pytest.approx((4 / 7 + 2 / 3) / 2)
    assert results["key-precision"] == pytest.approx(3 / 4)
    assert results["key-recall"] == pytest.approx(3 / 6)


def test_macro_figures_keep_the_precision_of_a_float():
    assert computed([["a"], ["a", "b"]], [["a", "b"], ["a"]])["key-macro"] == 2 / 3


def test_levels_are_counted_apart_and_the_chosen_one_comes_first():
    predicted = {"base": ["button", "grid"], "key": ["button@1", "grid@0"], "path": ["/grid@0", "/grid@0/button@1"]}
    target = {"base": ["button", "grid"], "key": ["button@2", "grid@0"], "path": ["/grid@0", "/grid@0/button@2"]}
    metric = ElementF1(level="base")
    metric.update([predicted], [target])
    results = metric.compute()
    assert next(iter(results)) == "base-micro"
    assert next(iter(ElementF1().compute())) == "key-micro"
    assert (results["base-micro"], results["key-micro"], results["path-micro"]) == (1.0, 0.5, 0.5)


def test_a_tree_right_but_for_its_root_has_no_right_path():
    predicted = {"base": ["a", "b"], "key": ["a", "b"], "path": ["/a", "/a/b"]}
    target = {"base": ["c", "b"], "key": ["c", "b"], "path": ["/c", "/c/b"]}
    metric = ElementF1()
    metric.update([predicted], [target])
    assert metric.compute()["path-micro"] == 0.0


def test_nothing_on_either_side_is_nan():
    assert all(math.isnan(value) for value in computed([[]], [[]]).values())
    assert all(math.isnan(value) for value in ElementF1().compute().values())


def test_samples_must_pair_up():
    with pytest.raises(ValueError, match="shorter"):
        ElementF1().update([same(["a"])], [])


multisets = st.lists(st.sampled_from("abc"), max_size=6)


@given(st.lists(st.tuples(multisets, multisets), min_size=2, max_size=6))
def test_sums_merge_and_figures_stay_in_bounds(pairs):
    whole, first, second = ElementF1(), ElementF1(), ElementF1()
    for metric, part in ((whole, pairs), (first, pairs[:1]), (second, pairs[1:])):
        metric.update([same(p) for p, _ in part], [same(t) for _, t in part])
    second.merge(first.sums)
    for name, value in whole.compute().items():
        other = second.compute()[name]
        assert (math.isnan(value) and math.isnan(other)) or value == pytest.approx(other)
        assert math.isnan(value) or 0 <= value <= 1


@given(multisets, multisets)
def test_micro_f1_is_the_harmonic_mean_of_precision_and_recall(a, b):
    results = computed([a], [b])
    precision, recall = results["key-precision"], results["key-recall"]
    if precision + recall > 0:
        assert results["key-micro"] == pytest.approx(2 / (1 / precision + 1 / recall))


@given(multisets, multisets)
def test_matching_is_symmetric_and_complete_on_equals(a, b):
    assert matches(a, b) == matches(b, a) <= min(len(a), len(b))
    assert matches(a, list(reversed(a))) == len(a)

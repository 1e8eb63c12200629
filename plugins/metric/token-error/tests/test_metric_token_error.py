"""Token error against a table filled cell by cell, published distances, and the trap of predicting nothing."""

from __future__ import annotations

import math
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainkit.testing import MetricConformance
from trainkit_metric_token_error.levenshtein import levenshtein
from trainkit_metric_token_error.token_error import TokenError

TRAP = ["a", "b", "c", "d", "e", "f", "g", "h", "a", "b"]


class TestTokenErrorConformance(MetricConformance):
    component = "token-error"
    cases = (
        (
            {
                "predicted_tokens": [["a", "b", "c"], ["x", "a", "b"], [], ["a"]],
                "target_tokens": [["a", "b", "c"], ["a", "b", "c", "d"], ["a", "b"], ["b"]],
            },
            # Distances 0, 3 (one too many, two missing), 2, 1; in place 3, 0, 0, 0.
            {"error": 6 / 10, "exact": 1 / 4, "position-accuracy": 3 / 10},
        ),
    )


def by_table(one, other):
    """Return the distance by its definition, cell by cell."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b)))
    return row[-1]


def computed(predicted, target):
    metric = TokenError()
    metric.update(predicted, target)
    return metric.compute()


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("kitten", "sitting", 3),
        ("saturday", "sunday", 3),
        ("intention", "execution", 5),
        ("", "abc", 3),
        ("abc", "", 3),
        ("", "", 0),
        ("aa", "a", 1),
        ("ab" * 100, "ba" * 100, 2),
        ("a" * 64, "b" * 65, 65),
    ],
)
def test_known_distances(one, other, distance):
    assert levenshtein(one, other) == distance == by_table(one, other)


words = st.lists(st.sampled_from("abc"), max_size=12)


@given(words, words)
def test_distance_is_that_of_the_table(one, other):
    assert levenshtein(one, other) == by_table(one, other)


@pytest.mark.parametrize("symbols", [2, 5, 50])
def test_distance_of_long_sequences_is_that_of_the_table(symbols):
    generator = random.Random(symbols)
    for length in (31, 32, 33, 63, 64, 65, 129, 150):
        one = [str(generator.randrange(symbols)) for _ in range(length)]
        other = [str(generator.randrange(symbols)) for _ in range(generator.randrange(160))]
        edited = [item for item in one if generator.random() > 0.1]
        assert levenshtein(one, other) == by_table(one, other)
        assert levenshtein(one, edited) == by_table(one, edited)


@given(words, words, words)
def test_it_is_a_metric(one, other, third):
    assert levenshtein(one, other) == levenshtein(other, one)
    assert (levenshtein(one, other) == 0) == (one == other)
    assert levenshtein(one, third) <= levenshtein(one, other) + levenshtein(other, third)
    assert abs(len(one) - len(other)) <= levenshtein(one, other) <= max(len(one), len(other))


def test_a_thousand_tokens_take_far_less_time_than_a_table():
    generator = random.Random(0)
    one, other = ([str(generator.randrange(20)) for _ in range(1000)] for _ in range(2))
    started = time.process_time()
    fast = levenshtein(one, other)
    between = time.process_time()
    assert fast == by_table(one, other)
    assert between - started < (time.process_time() - between) / 10


def test_trap_an_empty_prediction_is_all_error():
    assert computed([[]], [TRAP]) == {"error": 1.0, "exact": 0.0, "position-accuracy": 0.0}


def test_one_token_too_many_costs_one_edit_and_every_place():
    assert computed([["z", *TRAP]], [TRAP]) == {"error": 0.1, "exact": 0.0, "position-accuracy": 0.0}


def test_errors_are_summed_before_they_are_divided():
    results = computed([["a"], ["b"] * 9], [["b"], ["b"] * 9])
    assert results["error"] == pytest.approx(1 / 10), "the mean of 1/1 and 0/9 would be 1/2"
    assert results["exact"] == 0.5


def test_too_much_may_cost_more_than_everything():
    assert computed([["a", "b", "c"]], [["d"]])["error"] == 3.0


def test_without_right_tokens_there_is_no_error_to_tell():
    results = computed([["a"], []], [[], []])
    assert math.isnan(results["error"])
    assert math.isnan(results["position-accuracy"])
    assert results["exact"] == 0.5


def test_lower_is_better_and_the_error_comes_first():
    assert TokenError.higher_is_better is False
    assert next(iter(TokenError().compute())) == "error"


def test_samples_must_pair_up():
    with pytest.raises(ValueError, match="shorter"):
        TokenError().update([["a"]], [])

"""The ranking of monitored values: the best first, of equals the earlier one, never NaN."""

from __future__ import annotations

import math
import random

import pytest
from trainkit.best import Best, Ranked, ranked


def after(values: list[float], keep: int, mode: str) -> list[Ranked]:
    best = Best()
    for step, value in enumerate(values):
        best.ranking = ranked(best.ranking, Ranked(step, value), keep, mode)
    return list(best.ranking)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_it_is_what_sorting_all_values_gives(mode: str) -> None:
    draw = random.Random(7)
    for _ in range(500):
        values = [draw.choice([1.0, 2.0, 3.0, -math.inf, math.inf, 0.5]) for _ in range(draw.randrange(1, 9))]
        sign = 1 if mode == "min" else -1
        order = sorted(range(len(values)), key=lambda step: (sign * values[step], step))
        for keep in (1, 2, 3):
            assert after(values, keep, mode) == [Ranked(step, values[step]) for step in order[:keep]]


def test_of_equals_the_earlier_ones_stay() -> None:
    assert [entry.step for entry in after([1.0, 1.0, 1.0, 1.0], 2, "min")] == [0, 1]
    assert [entry.step for entry in after([1.0, 1.0, 1.0, 1.0], 2, "max")] == [0, 1]


def test_nan_has_no_place() -> None:
    assert after([math.nan, math.nan], 3, "min") == []
    assert [entry.step for entry in after([math.nan, 2.0, math.nan, 1.0], 3, "min")] == [3, 1]


def test_a_smaller_number_to_keep_shortens_it() -> None:
    three = tuple(after([3.0, 2.0, 1.0], 3, "min"))
    assert [entry.step for entry in ranked(three, Ranked(3, math.nan), 1, "min")] == [2]
    assert [entry.step for entry in ranked(three, Ranked(3, 0.5), 2, "min")] == [3, 2]


def test_its_state_comes_back() -> None:
    best, again = Best(tuple(after([3.0, 2.0, math.inf], 3, "min"))), Best()
    again.load_state_dict(best.state_dict())
    assert again == best
    assert (again.step, again.value, again.steps) == (1, 2.0, {0, 1, 2})
    assert (Best().step, Best().value) == (-1, None)

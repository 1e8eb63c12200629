"""The mathematics of the range test, on losses that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from trainkit.lrfind.rangetest import (
    FIRST,
    RangeTest,
    averages,
    ceiling,
    curve,
    has_exploded,
    minimum,
    rates,
    steepest,
    valley,
)

RATES = rates(1e-8, 1.0, 100)


def synthetic(rate: float) -> float:
    """Return a loss that falls around 1e-3, most steeply there, and grows from about 0.03 on."""
    return 1 - 0.5 / (1 + math.exp(-4 * (math.log10(rate) + 3))) + (rate / 0.3) ** 2


def noisy(scale: float, seed: int, falls: bool = True) -> RangeTest:
    """Return a test of the synthetic loss, or of a constant one, with noise."""
    noise = np.random.default_rng(seed).normal(0, scale, len(RATES))
    return outcome([(synthetic(rate) if falls else 1.0) + float(n) for rate, n in zip(RATES, noise, strict=True)])


def outcome(losses: list[float], **options) -> RangeTest:
    """Return a test with these losses, ended where one would end."""
    done = next((n for n in range(1, len(losses) + 1) if has_exploded(averages(losses[:n]))), len(losses))
    ended = "exploded" if done < len(losses) else ""
    return RangeTest(tuple(RATES[:done]), tuple(losses[:done]), ended=ended, **options)


def test_rates_are_even_in_their_logarithm():
    assert RATES[50] == pytest.approx(1.09750e-4, rel=1e-5)
    assert (RATES[0], RATES[-1]) == pytest.approx((1e-8, 1.0))
    assert np.ptp(np.diff(np.log10(RATES))) < 1e-12


def test_averages_have_their_bias_corrected():
    assert averages([3.0] * 5) == pytest.approx([3.0] * 5)
    assert averages([1.0, 2.0]) == pytest.approx([1.0, (0.98 * 0.02 * 1 + 0.02 * 2) / (1 - 0.98**2)])


@pytest.mark.parametrize(
    ("averaged", "stops"),
    [
        ([1.0, 0.5, 2.0], False),
        ([1.0, 0.5, 2.001], True),
        ([0.1, 5.0], False),
        ([1.0, math.nan], True),
        ([math.inf], True),
        ([1.0, -0.5, 2.4], False),
        ([1.0, -0.5, 2.6], True),
        ([-1.0, -3.0, 5.9], False),
        ([-1.0, -3.0, 6.1], True),
        ([-1.0, -3.0, -2.9], False),
    ],
)
def test_a_test_stops_at_four_times_the_best_and_below_zero_at_a_rise_of_three_times_the_largest(averaged, stops):
    assert has_exploded(averaged) is stops


def test_ceiling_is_above_the_best():
    assert ceiling(2.0, 0.5) == 2.0
    assert ceiling(2.0, 0.0) == 6.0
    assert ceiling(2.0, -4.0) == 8.0


def test_the_steepest_slope_of_the_synthetic_loss_is_at_a_thousandth_and_depends_on_the_axis():
    test = outcome([synthetic(rate) for rate in RATES])
    assert abs(math.log10(test.suggestion) + 3) < 0.1
    assert test.suggestions["minimum"].rate == pytest.approx(RATES[78] / 10, rel=0.25)
    linear = outcome([synthetic(rate) for rate in RATES], axis="linear")
    # Per unit of the rate, a fall early on is steeper than an equal one per decade later.
    assert linear.suggestion < test.suggestion / 1.5


def test_the_average_that_stops_a_test_lags_too_far_to_suggest_by():
    losses = [synthetic(rate) for rate in RATES]
    lagging = averages(losses)[FIRST:-1]
    lowest = RATES[losses.index(min(losses))]
    late = minimum(RATES[FIRST:-1], lagging).rate * 10
    ours = minimum(RATES[FIRST:-1], curve(RATES, losses)[FIRST:-1]).rate * 10
    assert math.log10(late / lowest) > 0.75
    assert abs(math.log10(ours / lowest)) < 0.1
    assert math.log10(steepest(RATES[FIRST:-1], lagging).rate / 1e-3) > 0.5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.01, 0.03, 0.1])
def test_noise_moves_suggestions_little(scale, seed):
    suggestions = noisy(scale, seed).suggestions
    assert abs(math.log10(suggestions["steepest"].rate / 1e-3)) < 0.5
    assert 2e-4 < suggestions["minimum"].rate < 5e-3
    assert 5e-5 < suggestions["valley"].rate < 5e-3


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_only_scatters_suggests_nothing(seed):
    test = noisy(0.1, seed, falls=False)
    assert test.suggestion is None
    assert {one.rate for one in test.suggestions.values()} == {None}
    assert "no more than it scatters" in test.reason or "does not fall" in test.reason


@pytest.mark.parametrize("losses", [[2.0] * 100, [1 + rate for rate in RATES]], ids=["constant", "rising"])
def test_a_loss_that_never_falls_suggests_nothing(losses):
    test = outcome(losses)
    assert [one.rate for one in test.suggestions.values()] == [None] * 3
    assert "does not fall" in test.reason
    assert test.notes == []


@pytest.mark.parametrize(("points", "left"), [(1, 0), (11, 0), (12, 1)])
def test_fewer_than_two_points_suggest_nothing(points, left):
    test = RangeTest(tuple(RATES[:points]), tuple(1 - 0.01 * i for i in range(points)), ended="exploded")
    assert test.suggestion is None
    assert test.reason.startswith(f"{left} of {points} points are left")
    document = test.document()
    assert document["suggestions"] == {"steepest": None, "valley": None, "minimum": None}
    assert set(document["reasons"]) == {"steepest", "valley", "minimum"}


def test_two_points_are_enough():
    few = rates(1e-8, 1.0, 13)
    test = RangeTest(tuple(few), tuple(1 - 0.01 * i for i in range(13)))
    assert test.suggestion == pytest.approx(few[10], rel=0.01)


def test_the_first_ten_points_and_the_last_do_not_count():
    losses = [synthetic(rate) for rate in RATES]
    test = RangeTest(tuple(RATES), (*losses[:-1], -1e9))
    assert test.suggestions == RangeTest(tuple(RATES), tuple(losses)).suggestions
    beginning = RangeTest(tuple(RATES), (*[9.0 - i for i in range(7)], *losses[7:]))
    assert abs(math.log10(beginning.suggestion) + 3) < 0.1


def test_an_explosion_does_not_move_the_minimum():
    losses = [synthetic(rate) for rate in RATES[:85]]
    mild, wild = outcome([*losses, 2.1, 2.2, 2.3]), outcome([*losses, 1e20, 1e30, 1e31])
    assert math.log10(mild.suggestions["minimum"].rate / wild.suggestions["minimum"].rate) < 0.15
    assert mild.suggestion == wild.suggestion


def test_what_is_not_finite_is_left_out():
    losses = [synthetic(rate) for rate in RATES[:80]]
    test = RangeTest(tuple(RATES[:81]), (*losses, math.nan), ended="not finite")
    assert abs(math.log10(test.suggestion) + 3) < 0.1
    assert len(test.smooth) == 70


def test_valley_is_the_middle_of_the_longest_fall():
    smooth = [5, 4, 5, 5, 4, 3, 2, 1, 1, 0]
    assert valley(list(range(10)), smooth).rate == 5
    assert valley([1, 2, 3], [1, 1, 2]).rate is None


def test_a_minimum_at_the_smallest_rate_is_none():
    assert minimum([1e-7, 1e-6], [1.0, 2.0]).rate is None
    assert minimum([1e-7, 1e-6], [2.0, 1.0]).rate == pytest.approx(1e-7)


def test_a_loss_that_still_falls_at_the_end_is_noted():
    test = RangeTest(tuple(RATES[:70]), tuple(synthetic(rate) for rate in RATES[:70]))
    assert test.suggestion is not None
    assert test.notes == [f"the loss still falls at the largest rate, {RATES[69]:g}: test up to a larger one"]
    assert outcome([synthetic(rate) for rate in RATES]).notes == []


def test_suggestions_have_three_digits():
    for one in noisy(0.03, 0).suggestions.values():
        assert one.rate == float(f"{one.rate:.2e}")


def test_the_axis_of_a_plot_holds_the_fall_and_cuts_the_explosion():
    low, high = outcome([synthetic(rate) for rate in RATES[:85]] + [1e20, 1e30]).value_range()
    assert low < 0.5 < 1.0 < high < 1.5
    assert outcome([0.01 + 3 * synthetic(rate) - 1.5 for rate in RATES[:85]]).value_range()[0] == 0.0
    assert RangeTest((1e-8,), (math.nan,)).value_range() is None


def test_a_curve_is_as_wide_in_decades_however_many_rates_are_tested():
    step = [1.0 if rate < 1e-4 else 0.0 for rate in RATES]
    finer_rates = rates(1e-8, 1.0, 397)
    finer = curve(finer_rates, [1.0 if rate < 1e-4 else 0.0 for rate in finer_rates])
    assert np.interp(-4.2, np.log10(finer_rates), finer) == pytest.approx(
        np.interp(-4.2, np.log10(RATES), curve(RATES, step)), abs=0.05
    )

"""Figures over folds."""

from __future__ import annotations

import math

import pytest
from trainkit.folds.figures import spread, spreads, t_quantile, t_share


# Abramowitz and Stegun, table 26.10.
@pytest.mark.parametrize(
    ("freedom", "level", "expected"),
    [(1, 0.95, 12.706), (2, 0.95, 4.303), (4, 0.95, 2.776), (9, 0.95, 2.262), (30, 0.95, 2.042), (5, 0.99, 4.032)],
)
def test_quantiles_of_students_t(freedom, level, expected):
    assert t_quantile(freedom, level) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("freedom", range(1, 12))
def test_the_share_is_the_integral_of_the_density(freedom):
    constant = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
    steps, t = 20000, 1.7
    density = [constant * (1 + (t * i / steps) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(steps + 1)]
    integral = 2 * t / steps * (sum(density) - (density[0] + density[-1]) / 2)
    assert t_share(t, freedom) == pytest.approx(integral, abs=1e-8)


def test_mean_deviation_and_interval():
    found = spread([0.2, 0.4, 0.3, 0.5, 0.1])
    assert found.mean == pytest.approx(0.3)
    assert found.sd == pytest.approx(math.sqrt(0.025))
    half = 2.7764451 * math.sqrt(0.025 / 5)
    assert (found.low, found.high) == (pytest.approx(0.3 - half), pytest.approx(0.3 + half))


def test_one_value_has_no_spread_and_what_is_not_finite_is_left_out():
    assert spread([2.0]).mean == 2.0
    assert math.isnan(spread([2.0]).sd)
    assert spread([1.0, math.nan, 3.0]).mean == 2.0
    assert spread([1.0, math.nan, 3.0]).sd == pytest.approx(math.sqrt(2))
    assert math.isnan(spread([]).mean)


def test_spreads_of_tables_that_lack_a_tag_somewhere():
    found = spreads([{"model": {"val/a": 1.0, "val/b": 5.0}}, {"model": {"val/a": 3.0}, "usual": {"val/a": 0.0}}])
    assert found["model"]["val/a"].values == (1.0, 3.0)
    assert found["model"]["val/b"].mean == 5.0
    assert math.isnan(found["usual"]["val/a"].values[0])

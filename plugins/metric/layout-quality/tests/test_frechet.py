"""Frechet distance against closed forms and scipy's root of a matrix; moments against NumPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import sqrtm
from trainkit_metric_layout_quality.frechet import features, frechet_distance, mean_and_covariance, moment_sums
from trainkit_metric_layout_quality.trees import nodes_of


def node(key, *children, box=None):
    return {"key": key, "children": list(children), "attributes": {} if box is None else {"box": list(box)}}


def gaussian(mean, variance):
    return np.array([mean], dtype=float), np.array([[variance]], dtype=float)


def test_gaussians_on_a_line():
    assert frechet_distance(*gaussian(0, 1), *gaussian(1, 1)) == pytest.approx(1)
    assert frechet_distance(*gaussian(0, 1), *gaussian(0, 1)) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(*gaussian(2, 9), *gaussian(-1, 4)) == pytest.approx(3**2 + (3 - 2) ** 2)
    assert frechet_distance(*gaussian(0, 0), *gaussian(0, 4)) == pytest.approx(4)


def sample(seed, count, width):
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, width)) @ generator.normal(size=(width, width)) + generator.normal(size=width)
    return rows.mean(axis=0), np.cov(rows, rowvar=False)


@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_the_root_of_the_product(seed):
    one, other = sample(seed, 50, 6), sample(seed + 100, 60, 6)
    root = np.real(sqrtm(one[1] @ other[1]))
    expected = ((one[0] - other[0]) ** 2).sum() + np.trace(one[1] + other[1] - 2 * root)
    assert frechet_distance(*one, *other) == pytest.approx(expected)
    assert frechet_distance(*other, *one) == pytest.approx(expected)


@pytest.mark.parametrize("count", [3, 5, 40])
def test_a_set_is_no_distance_from_itself_even_with_fewer_layouts_than_features(count):
    one = sample(0, count, 8)
    assert frechet_distance(*one, *one) == pytest.approx(0, abs=1e-6)


def test_features_by_hand():
    layout = node(
        "grid", node("text", box=(0.2, 0.4, 0.2, 0.1)), node("column", node("text", box=(0.4, 0.4, 0.4, 0.3)))
    )
    found = features(nodes_of(layout))
    assert found.pop("share of grid") == found.pop("share of column") == 1 / 4
    assert found.pop("share of text") == 1 / 2
    sizes = {"nodes": math.log(5), "leaves": math.log(3), "levels": math.log(4)}
    moments = {"mean x": 0.3, "mean y": 0.4, "mean width": 0.3, "mean height": 0.2}
    spreads = {"spread of x": 0.1, "spread of y": 0, "spread of width": 0.1, "spread of height": 0.1}
    assert found == pytest.approx(sizes | moments | spreads)
    assert features(nodes_of(node(""))) == {}
    assert "mean x" not in features(nodes_of(node("text")))


def test_moments_are_those_of_the_rows():
    rows = [{"b": 1.0, "a": 2.0}, {"b": 3.0}, {"a": -1.0, "c": 0.5}, {}]
    names = ["a", "b", "c"]
    table = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    mean, covariance = mean_and_covariance(moment_sums(rows), names, len(rows))
    assert mean == pytest.approx(table.mean(axis=0))
    assert covariance == pytest.approx(np.cov(table, rowvar=False))

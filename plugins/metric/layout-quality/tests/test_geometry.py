"""Geometry and matching against the figures of the specification, loops over pairs, and all permutations."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainkit_metric_layout_quality.geometry import alignment, intersections, iou, overlap, overlapping
from trainkit_metric_layout_quality.matching import MOST_OF_A_KIND, element_iou, elements_of, max_iou

CHECK = np.array([(0.25, 0.25, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5), (0.8, 0.2, 0.2, 0.2)])
HALVES = np.array([(0.5, 0.25, 1, 0.5), (0.5, 0.75, 1, 0.5)])


def test_figures_of_the_specification():
    assert alignment(CHECK) == pytest.approx(0.0883685, abs=1e-7)
    assert 3 * alignment(CHECK) == pytest.approx(0.2651055, abs=1e-7)
    assert 3 * overlap(CHECK) == pytest.approx(0.5725)
    assert overlap(CHECK) == pytest.approx(0.1908333, abs=1e-7)
    assert np.triu(intersections(CHECK, CHECK), 1).sum() == pytest.approx(0.065)
    assert iou(CHECK, CHECK)[0, 1] == pytest.approx(0.1428571, abs=1e-7)
    assert (alignment(HALVES), overlap(HALVES)) == (0, 0)
    assert (alignment(CHECK[:1]), overlap(CHECK[:1])) == (0, 0)


def by_loops(boxes):
    """Return alignment, overlap and mean IoU of overlapping pairs, written as their definitions read."""
    shapes = [(x - w / 2, x, x + w / 2, y - h / 2, y, y + h / 2) for x, y, w, h in boxes]

    def shared(a, b):
        return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[5], b[5]) - max(a[3], b[3]))

    def area(a):
        return (a[2] - a[0]) * (a[5] - a[3])

    aligned = covered = 0.0
    for i, a in enumerate(shapes):
        others = [b for j, b in enumerate(shapes) if j != i]
        nearest = min((abs(p - q) for b in others for p, q in zip(a, b, strict=True)), default=0)
        aligned -= math.log(1 - min(nearest, 1 - 1e-6))
        covered += sum(shared(a, b) / area(a) for b in others)
    pairs = [(a, b) for a, b in itertools.combinations(shapes, 2) if shared(a, b) > 0]
    ious = [shared(a, b) / (area(a) + area(b) - shared(a, b)) for a, b in pairs]
    return aligned / len(shapes), covered / len(shapes), (sum(ious), len(ious))


def random_boxes(generator, count):
    centres, sizes = generator.uniform(0.2, 0.8, (count, 2)), generator.uniform(0.05, 0.4, (count, 2))
    return np.concatenate([centres, sizes], axis=1)


@pytest.mark.parametrize("seed", range(10))
def test_arrays_agree_with_loops(seed):
    boxes = random_boxes(np.random.default_rng(seed), 1 + seed)
    aligned, covered, (total, pairs) = by_loops(boxes.tolist())
    assert alignment(boxes) == pytest.approx(aligned)
    assert overlap(boxes) == pytest.approx(covered)
    found, number = overlapping(boxes)
    assert (found, number) == (pytest.approx(total), pairs)


def test_nested_pairs_are_left_out_whichever_way_they_are_named():
    nested = np.zeros((3, 3), dtype=bool)
    nested[0, 1] = True
    rest = np.zeros((3, 3), dtype=bool)
    rest[1, 0] = True
    assert overlap(CHECK, nested) == overlap(CHECK, rest) == pytest.approx((0.5725 - 0.5) / 3)
    assert overlapping(CHECK, nested)[1] == 1
    assert alignment(CHECK, ~np.eye(3, dtype=bool)) == 0


def test_boxes_without_an_area():
    points = np.array([(0.5, 0.5, 0, 0), (0.5, 0.5, 0, 0), (0.1, 0.1, 0, 0.2)])
    assert iou(points, points).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert overlap(points) == 0
    assert overlapping(points) == (0, 0)


def test_boxes_as_far_apart_as_can_be_are_finite():
    assert alignment(np.array([(0, 0, 0, 0), (1, 1, 0, 0)], dtype=float)) == pytest.approx(-math.log(1e-6))


def by_permutations(one, other):
    """Return the largest sum of IoU over all pairings within equal labels, per element of the longer layout."""
    short, long = sorted((one, other), key=len)
    best = 0.0
    for order in itertools.permutations(long, len(short)):
        pairs = [(a, b) for a, b in zip(short, order, strict=True) if a[0] == b[0]]
        best = max(best, sum(float(iou(np.array([a[1]]), np.array([b[1]]))[0, 0]) for a, b in pairs))
    return best / len(long)


@pytest.mark.parametrize("seed", range(12))
def test_matching_of_elements_is_the_best_of_all(seed):
    generator = np.random.default_rng(seed)
    one, other = (
        elements_of([str(label) for label in generator.choice(["a", "b"], count)], random_boxes(generator, count))
        for count in generator.integers(1, 6, 2)
    )
    assert element_iou(one, other) == pytest.approx(by_permutations(one, other))
    assert element_iou(one, other) == pytest.approx(element_iou(other, one))


@given(st.integers(0, 1000), st.integers(1, 7))
def test_equal_layouts_match_in_any_order(seed, count):
    generator = np.random.default_rng(seed)
    boxes, labels = random_boxes(generator, count), [str(label) for label in generator.integers(0, 3, count)]
    order = generator.permutation(count)
    other = elements_of([labels[i] for i in order], boxes[order])
    assert other == elements_of(labels, boxes)
    assert element_iou(elements_of(labels, boxes), other) == pytest.approx(1)


def test_equal_boxes_of_other_labels_do_not_match():
    one, other = (elements_of([label], CHECK[:1]) for label in "ab")
    assert element_iou(one, other) == 0
    assert element_iou(one, ()) == 0
    assert max_iou({one: 1}, {other: 1}) == 0


@pytest.mark.parametrize("seed", range(6))
def test_matching_of_layouts_is_the_best_of_all(seed):
    generator = np.random.default_rng(seed)
    ours, theirs = (
        [
            elements_of(random.Random(seed + i).choice([["a", "a"], ["a", "b"]]), random_boxes(generator, 2))
            for i in range(4)
        ]
        for _ in range(2)
    )

    def value(a, b):
        return by_permutations(a, b) if [label for label, _ in a] == [label for label, _ in b] else 0

    best = max(sum(map(value, ours, order)) for order in itertools.permutations(theirs)) / 4
    assert max_iou(dict.fromkeys(ours, 1), dict.fromkeys(theirs, 1)) == pytest.approx(best)


def test_equal_sets_match_whatever_their_size_and_what_finds_no_partner_counts_as_nothing():
    generator = np.random.default_rng(0)
    layouts = {elements_of(["a"], random_boxes(generator, 1)): 1 + i % 3 for i in range(MOST_OF_A_KIND)}
    assert sum(layouts.values()) > MOST_OF_A_KIND
    assert max_iou(layouts, layouts) == pytest.approx(1)
    one, other = elements_of(["a"], CHECK[:1]), elements_of(["b"], CHECK[:1])
    assert max_iou({one: 2}, {one: 1, other: 1}) == pytest.approx(1 / 2)
    assert math.isnan(max_iou({}, {}))

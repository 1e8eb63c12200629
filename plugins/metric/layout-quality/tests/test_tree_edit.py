"""Tree edit distance against published examples, all mappings of tiny trees, and its recursive definition."""

from __future__ import annotations

import itertools
import random
import time
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainkit_metric_layout_quality.tree_edit import similarity, tree_edit_distance

LABELS = "abc"


def forests(size):
    """Return a strategy of forests: tuples of (label, forest)."""
    return st.recursive(
        st.just(()),
        lambda inner: st.lists(st.tuples(st.sampled_from(LABELS), inner), max_size=3).map(tuple),
        max_leaves=size,
    )


def tree(text):
    """Return the forest of a text such as 'f(d(a,c(b)),e)'; labels are one letter long."""
    position = 0

    def parts():
        nonlocal position
        found = []
        while position < len(text) and text[position] != ")":
            label, position = text[position], position + 1
            below = ()
            if position < len(text) and text[position] == "(":
                position += 1
                below = parts()
                position += 1
            if position < len(text) and text[position] == ",":
                position += 1
            found.append((label, below))
        return tuple(found)

    return parts()


def pre_order(forest, parent=-1, start=0):
    """Return labels and parents of a forest in pre-order."""
    labels, parents = [], []
    for label, below in forest:
        here = start + len(labels)
        inner_labels, inner_parents = pre_order(below, here, here + 1)
        labels += [label, *inner_labels]
        parents += [parent, *inner_parents]
    return labels, parents


def distance(one, other):
    return tree_edit_distance(*pre_order(one), *pre_order(other))


def size(forest):
    return sum(1 + size(below) for _, below in forest)


@cache
def by_definition(one, other):
    """Return the distance of two forests by the recursion on their last trees."""
    if not one or not other:
        return size(one) + size(other)
    (a, below_a), (b, below_b) = one[-1], other[-1]
    return min(
        by_definition(one[:-1] + below_a, other) + 1,
        by_definition(one, other[:-1] + below_b) + 1,
        by_definition(one[:-1], other[:-1]) + by_definition(below_a, below_b) + (a != b),
    )


def by_all_mappings(one, other):
    """Return the cheapest of all one-to-one mappings that keep ancestors and the order of siblings."""
    (a, a_parents), (b, b_parents) = pre_order(one), pre_order(other)

    def above(parents, node):
        return {node} if node < 0 else {node} | above(parents, parents[node])

    def relation(parents, i, j):
        return (i in above(parents, j), j in above(parents, i), i < j)

    best = len(a) + len(b)
    for count in range(1, min(len(a), len(b)) + 1):
        for ours in itertools.combinations(range(len(a)), count):
            # Pre-order is kept by every mapping that keeps ancestors and siblings, so nothing else need be tried.
            for theirs in itertools.combinations(range(len(b)), count):
                if all(
                    relation(a_parents, *ours_pair) == relation(b_parents, *theirs_pair)
                    for ours_pair, theirs_pair in zip(
                        itertools.combinations(ours, 2), itertools.combinations(theirs, 2), strict=True
                    )
                ):
                    renamed = sum(a[i] != b[j] for i, j in zip(ours, theirs, strict=True))
                    best = min(best, len(a) + len(b) - 2 * count + renamed)
    return best


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("f(d(a,c(b)),e)", "f(c(d(a,b)),e)", 2),  # Zhang and Shasha 1989, their example
        ("f(a(h,c(l)),e)", "f(a(d,c(b)),e)", 2),
        ("a(b,c)", "a(c,b)", 2),
        ("a(b(c))", "a(c)", 1),
        ("a", "b", 1),
        ("a,b", "a(b)", 2),
        ("", "a(b,c)", 3),
        ("", "", 0),
        ("a(b(c(d)))", "e(f,g,h)", 6),
    ],
)
def test_known_distances(one, other, expected):
    one, other = tree(one), tree(other)
    assert distance(one, other) == expected == by_definition(one, other) == by_all_mappings(one, other)


@given(forests(5), forests(5))
def test_distance_is_that_of_the_best_mapping(one, other):
    if size(one) <= 6 and size(other) <= 6:
        assert distance(one, other) == by_all_mappings(one, other)


@given(forests(14), forests(14))
def test_distance_is_that_of_the_recursion(one, other):
    assert distance(one, other) == by_definition(one, other)


@given(forests(8), forests(8), forests(8))
def test_it_is_a_metric(one, other, third):
    assert distance(one, other) == distance(other, one)
    assert (distance(one, other) == 0) == (one == other)
    assert distance(one, third) <= distance(one, other) + distance(other, third)


def mirrored(forest):
    return tuple((label, mirrored(below)) for label, below in reversed(forest))


@given(forests(10), forests(10))
def test_mirrors_are_as_far_apart(one, other):
    assert distance(mirrored(one), mirrored(other)) == distance(one, other)
    assert abs(size(one) - size(other)) <= distance(one, other) <= size(one) + size(other)


def test_similarity():
    assert similarity(0, 4, 4) == 1
    assert similarity(4, 0, 4) == 0
    assert similarity(2, 5, 8) == pytest.approx(0.75)
    assert similarity(6, 4, 4) == -0.5, "a chain and a star of four have at most two nodes in common"
    with pytest.raises(ZeroDivisionError):
        similarity(0, 0, 0)


def random_forest(generator, count):
    parents = [-1]
    for node in range(1, count):
        ancestors = [node - 1]
        while parents[ancestors[-1]] >= 0:
            ancestors.append(parents[ancestors[-1]])
        parents.append(generator.choice(ancestors))
    return [generator.choice("abcdefgh") for _ in range(count)], parents


def test_125_pairs_of_60_nodes_take_seconds():
    generator = random.Random(0)
    pairs = [(random_forest(generator, 60), random_forest(generator, 60)) for _ in range(125)]
    started = time.process_time()
    distances = [tree_edit_distance(*one, *other) for one, other in pairs]
    assert time.process_time() - started < 10
    assert 0 < min(distances) <= max(distances) <= 120


def test_a_long_chain_is_one_node_from_a_shorter_one():
    labels, parents = ["a"] * 300, list(range(-1, 299))
    assert tree_edit_distance(labels, parents, labels[:-1], parents[:-1]) == 1

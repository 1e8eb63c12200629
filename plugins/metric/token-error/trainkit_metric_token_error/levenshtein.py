"""Levenshtein distance of sequences, one column of the table at a time as bits of two integers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def levenshtein(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Return the fewest insertions, deletions and replacements that turn one sequence into the other.

    Neighbours in the table of distances differ by at most 1, so a column is kept as the bits where it steps up and
    those where it steps down, and the next column follows from a few operations on whole integers.  [paper: Myers
    1999, in the form of Hyyrö 2003]
    """
    one, other = _without_equal_ends(one, other)
    if len(one) > len(other):
        one, other = other, one
    if not one:
        return len(other)
    places: dict[Hashable, int] = {}
    for row, item in enumerate(one):
        places[item] = places.get(item, 0) | 1 << row
    last_row, every_row = 1 << len(one) - 1, (1 << len(one)) - 1
    up, down, distance = every_row, 0, len(one)
    for item in other:
        equal = places.get(item, 0)
        diagonal = (((equal & up) + up) ^ up) | equal
        right_up = down | ~(diagonal | up) & every_row
        right_down = up & diagonal
        distance += bool(right_up & last_row) - bool(right_down & last_row)
        # The row above the table steps up at every column: it is the distance from nothing.
        right_up, right_down = right_up << 1 | 1, right_down << 1
        up, down = (right_down | ~(equal | down | right_up)) & every_row, right_up & (equal | down) & every_row
    return distance


def _without_equal_ends(
    one: Sequence[Hashable], other: Sequence[Hashable]
) -> tuple[Sequence[Hashable], Sequence[Hashable]]:
    start, shorter = 0, min(len(one), len(other))
    while start < shorter and one[start] == other[start]:
        start += 1
    end = 0
    while end < shorter - start and one[-1 - end] == other[-1 - end]:
        end += 1
    return one[start : len(one) - end], other[start : len(other) - end]

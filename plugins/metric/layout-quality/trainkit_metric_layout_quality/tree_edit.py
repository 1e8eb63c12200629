"""Tree edit distance: the fewest deletions, insertions and renamings of nodes between two ordered trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_TOP = ""


def tree_edit_distance(
    one_labels: Sequence[str], one_parents: Sequence[int], other_labels: Sequence[str], other_parents: Sequence[int]
) -> int:
    """Return the tree edit distance with unit costs.

    By the dynamic programme of Zhang and Shasha.  [paper: Zhang and Shasha 1989] Its cost depends on how deep the trees
    are to one side, the distance does not change when both are mirrored: the cheaper side is taken.

    Args:
        one_labels: labels of the nodes of one tree, or of several side by side, in pre-order.
        one_parents: index of each node's parent, -1 at the top.
        other_labels: the same of what it is compared with.
        other_parents: the same of what it is compared with.
    """
    if list(one_labels) == list(other_labels) and list(one_parents) == list(other_parents):
        return 0
    sides = [
        (_post_order(one_labels, one_parents, mirrored), _post_order(other_labels, other_parents, mirrored))
        for mirrored in (False, True)
    ]
    one, other = min(sides, key=lambda pair: pair[0].cost * pair[1].cost)
    distances = [[0] * len(other.labels) for _ in one.labels]
    for i in one.keyroots:
        for j in other.keyroots:
            _between_forests(one, other, i, j, distances)
    return distances[-1][-1]


def similarity(distance: int, one_size: int, other_size: int) -> float:
    """Return 1 - distance / the larger size; 1 for equal trees, 0 for nothing at all, less where hardly anything fits.

    Raises:
        ZeroDivisionError: both trees are empty.
    """
    return 1 - distance / max(one_size, other_size)


@dataclass(frozen=True)
class _PostOrder:
    """Hold a tree in post-order: labels, each subtree's first leaf, and the roots whose subtrees are compared."""

    labels: list[str]
    first: list[int]
    keyroots: list[int]

    @property
    def cost(self) -> int:
        return sum(root - self.first[root] + 1 for root in self.keyroots)


def _post_order(labels: Sequence[str], parents: Sequence[int], mirrored: bool) -> _PostOrder:
    children: list[list[int]] = [[] for _ in range(len(labels) + 1)]
    for node, parent in enumerate(parents):
        children[parent].append(node)  # -1: what stands at the top hangs under one node more, the last
    top = len(labels)
    order, stack = [], [top]
    while stack:
        node = stack.pop()
        order.append(node)
        stack.extend(reversed(children[node]) if mirrored else children[node])
    order.reverse()
    place = {node: i for i, node in enumerate(order)}
    first = list(range(len(order)))
    for i, node in enumerate(order):
        below = children[node]
        if below:
            first[i] = first[place[below[-1 if mirrored else 0]]]
    last_with = {leaf: i for i, leaf in enumerate(first)}
    return _PostOrder(
        [_TOP if node == top else f"/{labels[node]}" for node in order], first, sorted(last_with.values())
    )


def _between_forests(one: _PostOrder, other: _PostOrder, i: int, j: int, distances: list[list[int]]) -> None:
    """Fill in the distances of all subtrees that share their first leaf with the subtree i, or j.

    Row x of the table is the forest of the nodes up to x of subtree i, column y that of the nodes up to y of subtree j.
    """
    i_first, j_first = one.first[i], other.first[j]
    columns = [(y, other.labels[y], other.first[y] - j_first, other.first[y] == j_first) for y in range(j_first, j + 1)]
    rows = [list(range(j - j_first + 2))]
    for x in range(i_first, i + 1):
        label, known = one.labels[x], distances[x]
        above, before_x = rows[-1], rows[one.first[x] - i_first]
        x_is_all = one.first[x] == i_first
        left, diagonal = above[0] + 1, above[0]
        row = [left]
        for column, (y, other_label, before_y, y_is_all) in enumerate(columns, 1):
            both_all = x_is_all and y_is_all
            best = diagonal + (label != other_label) if both_all else before_x[before_y] + known[y]
            diagonal = above[column]
            if diagonal < best:
                best = diagonal + 1
            if left < best:
                best = left + 1
            if both_all:
                known[y] = best
            row.append(best)
            left = best
        rows.append(row)

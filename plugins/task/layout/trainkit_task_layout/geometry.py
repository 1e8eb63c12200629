"""Boxes (centre x, centre y, width, height) as shares of a page: checks, hulls, reading order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .tree import Node, walk

Box = tuple[float, float, float, float]
Corners = tuple[float, float, float, float]
# What rounding may add to a share; anything beyond is a mistake in the data.
TOLERANCE = 1e-3


def corners(box: Sequence[float]) -> Corners:
    """Return (left, top, right, bottom)."""
    x, y, width, height = box
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def from_corners(left: float, top: float, right: float, bottom: float) -> Box:
    """Return (centre x, centre y, width, height)."""
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def inside_page(left: float, top: float, right: float, bottom: float) -> Box | None:
    """Return the box of these corners, or None unless it has an area and lies on the page, but for rounding."""
    sides = (left, top, right, bottom)
    if not all(math.isfinite(side) and -TOLERANCE <= side <= 1 + TOLERANCE for side in sides):
        return None
    left, top, right, bottom = (min(1.0, max(0.0, side)) for side in sides)
    return from_corners(left, top, right, bottom) if left < right and top < bottom else None


def hull(boxes: Sequence[Sequence[float]]) -> Box:
    """Return the smallest box around all of them."""
    edges = [corners(box) for box in boxes]
    lefts, tops, rights, bottoms = zip(*edges, strict=True)
    return from_corners(min(lefts), min(tops), max(rights), max(bottoms))


def reading_order(boxes: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of the boxes in reading order: rows from the top, each row from left to right.

    The topmost box that is left (of equal ones the leftmost) opens a row. To its row belong all boxes that stand beside
    it: the centre of each of the two lies within the height of the other. So a tall picture does not swallow the lines
    of text beside it. Ties keep the given order.  [reading: 8.1 says 'reading order' and no more]
    """
    edges = [corners(box) for box in boxes]
    waiting = sorted(range(len(boxes)), key=lambda i: (edges[i][1], edges[i][0]))
    order: list[int] = []
    while waiting:
        first = waiting[0]
        row = [i for i in waiting if i == first or _beside(boxes[first], boxes[i])]
        order += sorted(row, key=lambda i: (edges[i][0], edges[i][1]))
        waiting = [i for i in waiting if i not in row]
    return order


def fit_to_square(box: Sequence[float], size: tuple[int, int]) -> list[float]:
    """Return a box on a picture of this (width, height) as shares of the square into which the picture is fitted."""
    wide, high = (side / max(size) for side in size)
    x, y, width, height = box
    return [x * wide, y * high, width * wide, height * high]


def with_layout_boxes(layout: Node, structure: Node, sources: Sequence[Sequence[int]]) -> Node:
    """Return the layout with attribute 'box' on its nodes: the hull of the boxes of a node's sources.

    A node without sources has the hull of its children. Where the structure has no boxes, the layout stays as it is.

    Args:
        layout: the tree.
        structure: the tree with boxes on its nodes, or without.
        sources: for each layout node in pre-order, indices into the pre-order structure.
    """
    boxes = [current["attributes"].get("box") for current in walk(structure)]
    if not any(boxes):
        return layout
    pointers = iter(sources)

    def placed(current: Node) -> Node:
        own = [boxes[i] for i in next(pointers) if boxes[i]]
        children = [placed(child) for child in current["children"]]
        around = own or [child["attributes"]["box"] for child in children if "box" in child["attributes"]]
        attributes: dict[str, Any] = dict(current["attributes"])
        if around:
            attributes["box"] = list(hull(around))
        return {**current, "children": children, "attributes": attributes}

    return placed(layout)


def _beside(one: Sequence[float], other: Sequence[float]) -> bool:
    distance = abs(one[1] - other[1])
    return distance <= one[3] / 2 and distance <= other[3] / 2

"""The boxes of trees: attribute 'box' of a node, [centre x, centre y, width, height] as shares of the picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .geometry import moved_boxes

Tree = dict[str, Any]
Hull = tuple[float, float, float, float]


def walk(tree: Tree) -> Iterator[Tree]:
    """Yield the nodes in pre-order."""
    yield tree
    for child in tree["children"]:
        yield from walk(child)


def has_boxes(tree: Tree | None) -> bool:
    """Return whether a node of the tree has a box."""
    return tree is not None and any("box" in node["attributes"] for node in walk(tree))


def moved_in_place(tree: Tree, matrix: np.ndarray, width: int, height: int) -> Tree | None:
    """Return a copy of a tree with its boxes moved and all its nodes; None if no box is left.

    For a structure, and for a layout that is made of one: what is lost to the picture is still there, and named. A node
    that is lost has no box any more, nor has any below it. [reading: 5.2 speaks of dropping, which would leave sources
    dangling, and teach a model to pass over thin elements that it can read in the structure]
    """
    made = _Moved(tree, matrix, width, height).in_place(tree, False)[0]
    return made if has_boxes(made) else None


def moved_and_pruned(tree: Tree, matrix: np.ndarray, width: int, height: int) -> Tree | None:
    """Return a copy of a layout with its boxes moved, without the parts that are lost; None if no box is left.

    For a layout that is made of the picture alone. With a part goes its subtree; a group that lost all its parts goes
    too; numbered siblings are numbered anew.
    """
    made = _Moved(tree, matrix, width, height).pruned(tree)
    return made[0] if made is not None and has_boxes(made[0]) else None


class _Moved:
    """Hold the new box of each node that had one."""

    def __init__(self, tree: Tree, matrix: np.ndarray, width: int, height: int) -> None:
        nodes = [node for node in walk(tree) if "box" in node["attributes"]]
        boxes = np.array([node["attributes"]["box"] for node in nodes], dtype=np.float64).reshape(-1, 4)
        moved, kept = moved_boxes(boxes, matrix, width, height)
        low, high = moved[:, :2] - moved[:, 2:] / 2, moved[:, :2] + moved[:, 2:] / 2
        hulls = np.concatenate([low, high], axis=1).tolist()
        self.hulls: dict[int, Hull | None] = {
            id(node): tuple(hull) if is_kept else None
            for node, hull, is_kept in zip(nodes, hulls, kept.tolist(), strict=True)
        }

    def in_place(self, tree: Tree, lost: bool) -> tuple[Tree, Hull | None]:
        own = self.hulls.get(id(tree))
        lost = lost or (own is None and id(tree) in self.hulls)
        made = [self.in_place(child, lost) for child in tree["children"]]
        return _with_box(tree, None if lost else own, [child for child, _ in made], [hull for _, hull in made])

    def pruned(self, tree: Tree) -> tuple[Tree, Hull | None] | None:
        own = self.hulls.get(id(tree))
        if own is None and id(tree) in self.hulls:
            return None
        made = [part for child in tree["children"] if (part := self.pruned(child)) is not None]
        if tree["children"] and not made:
            return None
        children = [child for child, _ in made]
        if len(children) < len(tree["children"]):
            children = renumbered(children, [child["key"] for child in tree["children"]])
        return _with_box(tree, own, children, [hull for _, hull in made])


def renumbered(children: list[Tree], old_keys: list[str]) -> list[Tree]:
    """Return siblings with the first of the old numbers of their base, in order: 'column', 'column$1', ..."""
    stock: dict[str, list[str]] = {}
    for stem in sorted((key.split("@")[0] for key in old_keys), key=lambda stem: int(stem.partition("$")[2] or -1)):
        stock.setdefault(stem.partition("$")[0], []).append(stem)
    answer = []
    for child in children:
        stem, at, sources = child["key"].partition("@")
        answer.append({**child, "key": stock[stem.partition("$")[0]].pop(0) + at + sources})
    return answer


def _with_box(tree: Tree, own: Hull | None, children: list[Tree], inner: list[Hull | None]) -> tuple[Tree, Hull | None]:
    """Return a copy with these children and a box around its own and theirs, and the hull of all that is seen."""
    hull = own
    for other in inner:
        if other is not None:
            hull = other if hull is None else _around(hull, other)
    attributes = {name: value for name, value in tree["attributes"].items() if name != "box"}
    if own is not None and hull is not None:
        left, top, right, bottom = hull
        attributes["box"] = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    return {**tree, "children": children, "attributes": attributes}, hull


def _around(one: Hull, other: Hull) -> Hull:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])

"""The rules of 8.1 for the trees of a sample: what a layout says must be found in the structure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from trainkit.contracts import Sample

Tree = dict[str, Any]
_ANNOTATION = re.compile(r"\['[^'\[\]]*'\]")
TREES = ("structure", "layout")


def has_boxes(sample: Sample) -> bool:
    """Return whether a node of the structure or the layout has a box."""
    return any("box" in node["attributes"] for name in TREES if sample.get(name) for node in walk(sample[name]))


def fault_of(sample: Sample) -> str:
    """Return the first rule that the trees of a sample break, or ''.

    The layout is not empty, boxes lie in the picture, and, where there is a structure, each source is a node of it, no
    node is used twice, and the sources of one key lead from parent to child.
    """
    structure, layout = sample["structure"], sample["layout"]
    if not layout["key"] and not layout["children"]:
        return "the layout is empty"
    for tree in (structure, layout):
        for node in walk(tree) if tree is not None else ():
            box = node["attributes"].get("box", ())
            if not all(-1e-6 <= value <= 1 + 1e-6 for value in box):
                return f"the box of '{node['key']}' leaves the picture"
    if structure is None:
        return ""
    unplaced = _Page(structure).unplaced(layout, 0)
    if unplaced:
        return f"the sources of '{unplaced}' are not free nodes of the structure, each a child of the last"
    return ""


def walk(tree: Tree) -> Iterator[Tree]:
    """Yield the nodes in pre-order."""
    yield tree
    for child in tree["children"]:
        yield from walk(child)


class _Page:
    """Hold a structure's nodes in pre-order, and which of them a layout has used so far.

    A name may stand for several nodes: the first free one below the sources of the nearest ancestor is taken, or else
    the first free one anywhere.
    """

    def __init__(self, structure: Tree) -> None:
        self.parents: list[int] = []
        self.ends: list[int] = []
        self.places: dict[str, list[int]] = {}
        self.used: set[int] = set()
        self._add(structure, -1)

    def _add(self, node: Tree, parent: int) -> None:
        here = len(self.parents)
        self.places.setdefault(_ANNOTATION.sub("", node["key"]), []).append(here)
        self.parents.append(parent)
        self.ends.append(0)
        for child in node["children"]:
            self._add(child, here)
        self.ends[here] = len(self.parents)

    def unplaced(self, node: Tree, scope: int) -> str:
        """Use the sources of a layout and of all below; return the first key for which that fails, or ''."""
        names = _ANNOTATION.sub("", node["key"]).split("@")[1:]
        if names:
            starts = self.places.get(names[0], [])
            inside = [place for place in starts if scope <= place < self.ends[scope]]
            chain = next((found for place in [*inside, *starts] if (found := self._chain(place, names))), None)
            if chain is None:
                return str(node["key"])
            self.used.update(chain)
            scope = chain[-1]
        return next((key for child in node["children"] if (key := self.unplaced(child, scope))), "")

    def _chain(self, place: int, names: list[str]) -> list[int]:
        if place in self.used:
            return []
        if len(names) == 1:
            return [place]
        below = (other for other in self.places.get(names[1], []) if self.parents[other] == place)
        rest = next((found for other in below if (found := self._chain(other, names[1:]))), [])
        return [place, *rest] if rest else []

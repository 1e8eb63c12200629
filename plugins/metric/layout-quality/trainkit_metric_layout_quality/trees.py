"""Trees as parallel lists, and the parts of their keys.

A tree is a mapping {"key": text, "children": [tree, ...], "attributes": {...}}. A root without a key is no node: it
holds several parts, or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tree = Mapping[str, Any]
Floats = NDArray[np.float64]

_ANNOTATION = re.compile(r"\['[^'\[\]]*'\]")
_BASE = re.compile(r"(?P<base>[a-z][\w-]*)(?:\$\d+)?")
_SOURCE = re.compile(r"[A-Za-z][\w-]*(?:\.[^\s.@$\[\]'\"]+)*")
ILL_FORMED = "?"


@dataclass(frozen=True)
class Key:
    """Hold a key of 8.1: base ('$' number)? ('@' source)*, its sources without annotations."""

    text: str
    base: str
    sources: tuple[str, ...]

    @property
    def well_formed(self) -> bool:
        """Say whether it follows the grammar."""
        return self.base != ILL_FORMED and all(map(_SOURCE.fullmatch, self.sources))


def without_annotations(key: str) -> str:
    """Return a key without its ['name:value'] parts."""
    return _ANNOTATION.sub("", key)


def parse(key: str) -> Key:
    """Return the parts of any text as far as it has them; the base is ILL_FORMED where there is none."""
    text = without_annotations(key)
    head, *sources = text.split("@")
    match = _BASE.fullmatch(head)
    return Key(text, match["base"] if match else ILL_FORMED, tuple(sources))


@dataclass(frozen=True)
class Nodes:
    """Hold the nodes of a tree in pre-order.

    Args:
        keys: as written, without annotations.
        parents: index of each node's parent, -1 for those at the top.
        boxes: [n, 4] centre x, centre y, width, height as shares of the picture; NaN where a node has no box.
    """

    keys: list[str]
    parents: list[int]
    boxes: Floats

    @cached_property
    def parsed(self) -> list[Key]:
        """Return the parts of each key."""
        return [parse(key) for key in self.keys]

    @cached_property
    def depths(self) -> list[int]:
        """Return each node's level, 1 at the top."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        return depths

    @cached_property
    def boxed(self) -> list[int]:
        """Return the indices of the nodes that have a box."""
        return [int(i) for i in np.flatnonzero(np.isfinite(self.boxes).all(axis=1))]

    @cached_property
    def within(self) -> NDArray[np.bool_]:
        """Return [n, n]: whether node i lies below node j in the tree, at any depth."""
        below = np.zeros((len(self.keys), len(self.keys)), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                below[node] = below[parent]
                below[node, parent] = True
        return below


def nodes_of(tree: Tree) -> Nodes:
    """Return the nodes of a tree in pre-order, without a nameless root."""
    keys: list[str] = []
    parents: list[int] = []
    boxes: list[Sequence[float]] = []
    stack = [(part, -1) for part in reversed(tree["children"])] if not tree["key"] else [(tree, -1)]
    while stack:
        node, parent = stack.pop()
        stack.extend((child, len(keys)) for child in reversed(node["children"]))
        keys.append(without_annotations(node["key"]))
        parents.append(parent)
        boxes.append(_box(node.get("attributes") or {}))
    return Nodes(keys, parents, np.array(boxes, dtype=np.float64).reshape(-1, 4))


def _box(attributes: Mapping[str, Any]) -> Sequence[float]:
    box = attributes.get("box")
    return [float("nan")] * 4 if box is None else [float(number) for number in box]

"""A tree as slots: level by level, for each node as many slots as a node of its class had children in training.

Slots that follow the tree make the place of a node known before anything is: the second child of the third child of
the root has the same address in every layout, and a missing child is an empty slot (class PAD). The slots of a level
exist as soon as the level above is known.  [reading: 8.1 asks for a lossless linearisation, 3.8 for PAD as a class]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .tree import NAMELESS, Node, node, parse_target_key

PAD, UNKNOWN, MASK = "<pad>", "<unk>", "<mask>"
PAD_CLASS, UNKNOWN_CLASS = 0, 1
SPECIAL = (PAD, UNKNOWN)
# Addresses are made of (level, place) pairs; what lies beyond shares the last one.
PLACES = 16
Sources = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Grammar:
    """Hold what training layouts taught about trees.

    Args:
        classes: names of the classes; the first two are PAD and UNKNOWN.
        children: for each class, the most children one had.
        roots: the most roots a layout had (several where the root has no name).
        levels: the most levels.
        pointers: the most sources of a key.
        is_flat: whether a class is a whole key instead of a base with its number.
    """

    classes: tuple[str, ...] = SPECIAL
    children: tuple[int, ...] = (0, 0)
    roots: int = 1
    levels: int = 1
    pointers: int = 0
    is_flat: bool = False


@dataclass
class Slots:
    """Hold the slots of a layout in level order as parallel lists; `parents` are slot numbers, -1 for roots."""

    labels: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    paths: list[tuple[int, ...]] = field(default_factory=list)
    sources: list[tuple[int, ...]] = field(default_factory=list)
    nodes: list[Node | None] = field(default_factory=list)
    is_cut: bool = False

    def add(self, parent: int, level: int, path: tuple[int, ...]) -> None:
        """Append an empty slot."""
        self.labels.append(PAD_CLASS)
        self.parents.append(parent)
        self.levels.append(level)
        self.paths.append(path)
        self.sources.append(())
        self.nodes.append(None)


def class_of(key: str, is_flat: bool) -> str:
    """Return the class of a key: all of it, or its base with its number."""
    return key if is_flat else key.partition("@")[0]


def parts_of(layout: Node) -> list[Node]:
    """Return the roots of a layout: the children of a nameless root, or the layout itself."""
    return list(layout["children"]) if layout["key"] == NAMELESS else [layout]


def learn(layouts: Iterable[Node], is_flat: bool = False) -> Grammar:
    """Return the grammar of training layouts."""
    most: dict[str, int] = {}
    roots = levels = pointers = 0

    def visit(current: Node, level: int) -> None:
        nonlocal levels, pointers
        name = class_of(current["key"], is_flat)
        most[name] = max(most.get(name, 0), len(current["children"]))
        levels, pointers = max(levels, level + 1), max(pointers, len(parse_target_key(current["key"]).sources))
        for child in current["children"]:
            visit(child, level + 1)

    for layout in layouts:
        parts = parts_of(layout)
        roots = max(roots, len(parts))
        for part in parts:
            visit(part, 0)
    names = sorted(most)
    return Grammar(
        (*SPECIAL, *names), (0, 0, *(most[name] for name in names)), max(1, roots), max(1, levels), pointers, is_flat
    )


def place(layout: Node, sources: Sources, grammar: Grammar, limit: int, nodes: int = 10**9) -> Slots:
    """Return the slots of a layout.

    A subtree that does not fit (more children than a node of that class had in training, more levels, more than
    `limit` slots, a source beyond the first `nodes`) is cut off at its root, and `is_cut` tells.

    Args:
        layout: the layout.
        sources: the pointers of each of its nodes in pre-order; the nameless root counts as a node.
        grammar: what training taught.
        limit: most slots.
        nodes: structure nodes that can be pointed to.
    """
    numbers = {name: i for i, name in enumerate(grammar.classes)}
    pointers = iter(sources)
    by_node: dict[int, tuple[int, ...]] = {}

    def note(current: Node) -> None:
        by_node[id(current)] = next(pointers)
        for child in current["children"]:
            note(child)

    note(layout)
    slots = Slots()
    row: list[tuple[int, int, list[Node]]] = [(-1, grammar.roots, parts_of(layout))]
    for level in range(grammar.levels):
        following: list[tuple[int, int, list[Node]]] = []
        for parent, capacity, children in row:
            fitting = [child for child in children if all(i < nodes for i in by_node[id(child)])]
            fitting, room = fitting[:capacity], limit - len(slots.labels)
            slots.is_cut |= len(fitting) < len(children)
            if capacity > room:
                slots.is_cut |= bool(fitting)
                continue
            path = slots.paths[parent] if parent >= 0 else ()
            for place_of_child in range(capacity):
                slots.add(parent, level, (*path, place_of_child))
                if place_of_child >= len(fitting):
                    continue
                child, here = fitting[place_of_child], len(slots.labels) - 1
                label = numbers.get(class_of(child["key"], grammar.is_flat), UNKNOWN_CLASS)
                slots.labels[here], slots.nodes[here] = label, child
                slots.sources[here] = () if grammar.is_flat else by_node[id(child)]
                following.append((here, grammar.children[label], child["children"]))
        row = following
    slots.is_cut |= any(children for _, _, children in row)
    return slots


def address(path: Sequence[int], levels: int) -> list[int]:
    """Return a path as rows of the table of places, one for each level."""
    return [min(level, levels - 1) * PLACES + min(step, PLACES - 1) for level, step in enumerate(path)]


def tree_of(
    names: Sequence[str], parents: Sequence[int], sources: Sources, boxes: Sequence[Sequence[float]] | None = None
) -> Node:
    """Return the layout of filled slots: keys with pointers ('wrapper@3@4'); slots without a name hold nothing."""
    root = node(NAMELESS)
    made: dict[int, Node] = {-1: root}
    for slot, (name, parent) in enumerate(zip(names, parents, strict=True)):
        if not name or parent not in made:
            continue
        attributes: dict[str, Any] = {} if boxes is None else {"box": [float(side) for side in boxes[slot]]}
        made[slot] = node(name + "".join(f"@{i}" for i in sources[slot]), [], attributes)
        made[parent]["children"].append(made[slot])
    return root["children"][0] if len(root["children"]) == 1 else root

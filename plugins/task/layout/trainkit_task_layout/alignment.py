"""Which nodes of the structure a layout is made of: names in keys become pointers to nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .tree import Invalid, Node, parse_target_key, walk, without_annotations


@dataclass(frozen=True, slots=True)
class Nodes:
    """Hold a structure's nodes in pre-order: names (without annotations), parents and ends of subtrees."""

    names: list[str]
    parents: list[int]
    ends: list[int]


def index(structure: Node) -> Nodes:
    """Return the nodes of a structure; a subtree is the range from a node's index to its end (exclusive)."""
    nodes = Nodes([], [], [])

    def visit(current: Node, parent: int) -> None:
        here = len(nodes.names)
        nodes.names.append(without_annotations(current["key"]))
        nodes.parents.append(parent)
        nodes.ends.append(0)
        for child in current["children"]:
            visit(child, here)
        nodes.ends[here] = len(nodes.names)

    visit(structure, -1)
    return nodes


def align(structure: Node, layout: Node) -> list[tuple[int, ...]]:
    """Return, for each layout node in pre-order, the indices of its sources in the pre-order structure.

    A name may stand for several nodes. The first free one below the sources of the nearest ancestor is taken, or else
    the first free one anywhere; the sources of one key are a chain of parent and child.  [reading: 8.1 leaves it open]

    Raises:
        Invalid: a source that does not exist, is used twice, or is not a child of the source before it.
    """
    nodes = index(structure)
    where: dict[str, list[int]] = {}
    for i, name in enumerate(nodes.names):
        where.setdefault(name, []).append(i)
    used = [False] * len(nodes.names)
    found: list[tuple[int, ...]] = []

    def visit(current: Node, scope: int) -> None:
        key = parse_target_key(current["key"])
        chain = _free_chain(key.sources, scope, nodes, where, used)
        for i in chain:
            used[i] = True
        found.append(chain)
        for child in current["children"]:
            visit(child, chain[-1] if chain else scope)

    for part in layout["children"] if not layout["key"] else [layout]:
        visit(part, 0)
    return [(), *found] if not layout["key"] else found


def _free_chain(
    names: Sequence[str], scope: int, nodes: Nodes, where: dict[str, list[int]], used: list[bool]
) -> tuple[int, ...]:
    if not names:
        return ()
    starts = where.get(names[0], [])
    inside = [i for i in starts if scope <= i < nodes.ends[scope]]
    for start in [*inside, *starts]:
        chain = _chain_from(start, names, nodes, where, used)
        if chain:
            return chain
    raise Invalid("sources", _why_not(names, where, used))


def _chain_from(
    start: int, names: Sequence[str], nodes: Nodes, where: dict[str, list[int]], used: list[bool]
) -> tuple[int, ...]:
    if used[start]:
        return ()
    if len(names) == 1:
        return (start,)
    for child in where.get(names[1], []):
        if nodes.parents[child] == start:
            rest = _chain_from(child, names[1:], nodes, where, used)
            if rest:
                return (start, *rest)
    return ()


def _why_not(names: Sequence[str], where: dict[str, list[int]], used: list[bool]) -> str:
    for name in names:
        if name not in where:
            return f"the source '{name}' is not in the structure"
        if all(used[i] for i in where[name]):
            return f"the source '{name}' is used more often than it is in the structure"
    return f"the sources '{'@'.join(names)}' are not a chain of parent and child in the structure"


def pre_order_keys(root: Node) -> list[str]:
    """Return the keys in pre-order."""
    return [current["key"] for current in walk(root)]

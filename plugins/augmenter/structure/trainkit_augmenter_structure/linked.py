"""A page and its layout as linked trees: the nodes of the layout hold the very nodes of the page they are made of.

Edits of the page then need no bookkeeping: names in the layout's keys are written anew from the links.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain as chained
from typing import Any

_ANNOTATION = re.compile(r"\['[^'\[\]]*'\]")
_SOURCE = re.compile(r"@([^@\[\]]*(?:\['[^'\[\]]*'\])*)")
Tree = dict[str, Any]


@dataclass(slots=True, eq=False)
class Element:
    """Be a node of the page."""

    key: str
    children: list[Element] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the key without annotations, as keys of the layout cite it."""
        return _ANNOTATION.sub("", self.key) if "[" in self.key else self.key

    def walk(self) -> Iterator[Element]:
        """Yield the nodes in pre-order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def depth(self) -> int:
        """Return the number of levels."""
        return 1 + max((child.depth() for child in self.children), default=0)

    def tree(self) -> Tree:
        """Return the node as plain data."""
        return {
            "key": self.key,
            "children": [child.tree() for child in self.children],
            "attributes": dict(self.attributes),
        }


@dataclass(slots=True, eq=False)
class Target:
    """Be a node of the layout: its stem (base and number), the page nodes it is made of, outer first."""

    stem: str
    sources: list[Element]
    children: list[Target] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)

    def walk(self) -> Iterator[Target]:
        """Yield the nodes in pre-order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def tree(self) -> Tree:
        """Return the node as plain data."""
        return {
            "key": self.stem + "".join(f"@{source.name}" for source in self.sources),
            "children": [child.tree() for child in self.children],
            "attributes": dict(self.attributes),
        }


@dataclass(slots=True)
class Linked:
    """Hold a page and its layout."""

    page: Element
    layout: Target

    def links(self) -> list[list[int]]:
        """Return, for each layout node in pre-order, the positions of its sources in the page."""
        position = {id(element): i for i, element in enumerate(self.page.walk())}
        return [[position[id(source)] for source in target.sources] for target in self.layout.walk()]


def link(structure: Tree, layout: Tree) -> Linked | None:
    """Return the linked copy of two plain trees, or None if a source is missing, used twice or not a child of the last.

    A name may stand for several nodes: the first free one below the nearest linked ancestor is taken, or else the first
    free one anywhere.
    """
    page = _element(structure)
    free = {id(element): element for element in page.walk()}

    def visit(tree: Tree, scope: Element) -> Target | None:
        stem, names = tree["key"].split("@")[0], _SOURCE.findall(tree["key"])
        chain = _chain([_ANNOTATION.sub("", name) for name in names], chained(scope.walk(), free.values()), free)
        if chain is None:
            return None
        for element in chain:
            del free[id(element)]
        children = []
        for child in tree["children"]:
            made = visit(child, chain[-1] if chain else scope)
            if made is None:
                return None
            children.append(made)
        return Target(stem, chain, children, dict(tree["attributes"]))

    root = visit(layout, page)
    return None if root is None else Linked(page, root)


def _element(tree: Tree) -> Element:
    return Element(tree["key"], [_element(child) for child in tree["children"]], dict(tree["attributes"]))


def _chain(names: list[str], candidates: Iterable[Element], free: Container[int]) -> list[Element] | None:
    """Return the first free candidate of the first name whose descendants, level by level, have the other names."""
    if not names:
        return []
    for element in candidates:
        if element.name == names[0] and id(element) in free:
            rest = _chain(names[1:], element.children, free)
            if rest is not None:
                return [element, *rest]
    return None

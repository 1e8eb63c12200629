"""The rules of a layout key beyond its grammar: which bases there are, and which need sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainkit.errors import did_you_mean

from .geometry import reading_order
from .tree import Invalid, Node, parse_target_key, walk, without_annotations

BASES = (
    "section", "grid", "column", "wrapper", "freedom",
    "heading", "paragraph", "button", "icon", "image", "list", "map", "qr", "counter", "divider", "video", "marquee",
    "carousel", "accordion", "tab", "social", "gallery", "masonry",
)  # fmt: skip
# Columns and free areas may be of the layout's own making; anything else is made of nodes of the structure.
# [reading: 8.1 lists `column`, `column$1` and `freedom$1`; any number is taken here]
WITHOUT_SOURCES = frozenset({"column", "freedom"})
NOWHERE = 10**9
PROPS = {"bi": "background image", "bo": "background overlay", "bv": "background video"}


def check_layout(layout: Node) -> None:
    """Raise Invalid if a key has a base that there is not, or lacks sources where its base needs them."""
    for current in walk(layout):
        key = parse_target_key(current["key"])
        if key.base not in BASES:
            raise Invalid(
                "base",
                f"'{key.base}' in '{current['key']}' is not a base{did_you_mean(key.base, BASES)} "
                f"(there are {', '.join(BASES)})",
            )
        if not key.sources and key.base not in WITHOUT_SOURCES:
            raise Invalid(
                "sources",
                f"'{current['key']}' names no source; only column and freedom may stand without: "
                f"write {key.base}@SOURCE with a key of the structure",
            )


def check_props(props: Mapping[str, str], structure: Node) -> None:
    """Raise Invalid unless the page properties are bi, bo and bv, and name nodes of the structure."""
    names = {without_annotations(current["key"]) for current in walk(structure)}
    for name, key in props.items():
        if name not in PROPS:
            raise Invalid("props", f"'{name}' is not a page property: {', '.join(PROPS)}{did_you_mean(name, PROPS)}")
        if without_annotations(key) not in names:
            raise Invalid("props", f"{name} ({PROPS[name]}) names '{key}', which is not in the structure")


def out_of_order(layout: Node, sources: Sequence[Sequence[int]]) -> list[str]:
    """Return the keys of nodes whose children do not stand in reading order.

    Children with boxes are read by their boxes; where any has none, by the first source in each one's subtree, in the
    order of the structure. Children without either do not count.  [reading: 8.1 (4)]
    """
    pointers = iter(sources)
    found: list[tuple[int, str]] = []

    def visit(current: Node, place: int) -> int:
        """Return the first source in the subtree; NOWHERE if there is none."""
        own = min(next(pointers), default=NOWHERE)
        children = current["children"]
        firsts = [visit(child, place + 1 + i) for i, child in enumerate(children)]
        boxes = [child["attributes"].get("box") for child in children]
        if children and all(boxes):
            order = reading_order(boxes)
        else:
            placed = [first for first in firsts if first != NOWHERE]
            order = sorted(range(len(placed)), key=placed.__getitem__)
        if order != sorted(order):
            found.append((place, current["key"]))
        return min([own, *firsts])

    visit(layout, 0)
    return [key for _, key in sorted(found)]

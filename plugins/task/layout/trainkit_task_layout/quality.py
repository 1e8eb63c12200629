"""How good a sample is: one number in [0, 1], from what its own files tell."""

from __future__ import annotations

from collections.abc import Sequence

from .tree import Node, walk


def quality(
    structure: Node | None,
    layout: Node,
    sources: Sequence[Sequence[int]],
    picture_size: tuple[int, int] | None,
    size: int,
    disordered: int = 0,
) -> float:
    """Return the quality of a sample: coverage * sharpness * order.

    [reading: 4.6 wants a score and defines none]

    coverage: share of the structure's leaves that the layout accounts for (1 without a structure).
    sharpness: longer side of the picture over the side that a model sees, at most 1 (1 without a picture).
    order: share of the layout's inner nodes whose children stand in reading order.

    What cannot be told does not count against a sample. A layout that has to be cut is judged where it is cut.

    Args:
        structure: the tree that the layout is made of, or None.
        layout: the tree to learn.
        sources: for each layout node in pre-order, indices into the pre-order structure.
        picture_size: width and height of the picture as it was, or None.
        size: side of the square into which pictures are fitted.
        disordered: number of layout nodes whose children do not stand in reading order.
    """
    sharpness = min(1.0, max(picture_size) / size) if picture_size is not None else 1.0
    inner = sum(bool(current["children"]) for current in walk(layout))
    order = 1 - disordered / inner if inner else 1.0
    covered = 1.0 if structure is None else coverage(structure, layout, sources)
    return covered * sharpness * order


def coverage(structure: Node, layout: Node, sources: Sequence[Sequence[int]]) -> float:
    """Return the share of the structure's leaves that are a source, or lie below a source of a layout leaf.

    What stands inside a list or a gallery belongs to it; what stands inside a section must be named by itself.
    """
    whole = {i for leaf, chain in zip(walk(layout), sources, strict=True) if not leaf["children"] for i in chain}
    named = {i for chain in sources for i in chain}
    hits: list[bool] = []
    position = 0

    def visit(current: Node, inside: bool) -> None:
        nonlocal position
        here = position
        position += 1
        if not current["children"]:
            hits.append(inside or here in named)
        for child in current["children"]:
            visit(child, inside or here in whole)

    visit(structure, False)
    return sum(hits) / len(hits)

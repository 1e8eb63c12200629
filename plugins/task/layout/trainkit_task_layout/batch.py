"""From samples to rows of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from trainkit.contracts import Sample

from .alignment import align
from .linear import cut, linearise
from .model import DEPTHS, SIBLINGS
from .tree import Node, structure_words, walk
from .vocabulary import MAX_NODES, buckets


@dataclass(slots=True)
class StructureRow:
    """Hold a structure's nodes in pre-order as parallel lists."""

    tags: list[str] = field(default_factory=list)
    classes: list[list[int]] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    siblings: list[int] = field(default_factory=list)


def words_of(sample: Sample, max_length: int, max_nodes: int = MAX_NODES) -> list[str]:
    """Return the words of a sample's layout, cut to what the model can read and write."""
    layout, structure = sample["layout"], sample["structure"]
    sources = align(structure, layout) if structure is not None else [()] * sum(1 for _ in walk(layout))
    words = linearise(layout, sources)
    if len(words) <= max_length and all(i < max_nodes for chain in sources for i in chain):
        return words
    return linearise(*cut(layout, sources, max_length, max_nodes))


def structure_row(structure: Node) -> StructureRow:
    """Return the first MAX_NODES nodes of a structure; what a node holds (text, src) counts among its classes."""
    row = StructureRow()

    def visit(current: Node, depth: int, sibling: int) -> None:
        if len(row.tags) == MAX_NODES:
            return
        tag, words = structure_words(current["key"])
        row.tags.append(tag)
        row.classes.append(buckets([*words, *(f"={name}" for name in sorted(current["attributes"]) if name != "box")]))
        row.depths.append(min(depth, DEPTHS - 1))
        row.siblings.append(min(sibling, SIBLINGS - 1))
        for place, child in enumerate(current["children"]):
            visit(child, depth + 1, place)

    visit(structure, 0, 0)
    return row


def pad(rows: Sequence[Sequence[int]], value: int, width: int | None = None) -> Tensor:
    """Return rows of unequal length as [len(rows), width], filled up with a value; width: the longest row."""
    width = max(map(len, rows)) if width is None else width
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.long)

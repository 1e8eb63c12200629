"""From samples to rows of numbers: pictures, structures, and what a page says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from trainkit.contracts import Sample

from .encoder import DEPTHS, SIBLINGS
from .tree import Node, structure_words
from .vocabulary import MAX_NODES, PAD_ID, Tags

PROPS = ("bi", "bo", "bv")
NO_PARENT = -1


@dataclass(slots=True)
class StructureRow:
    """Hold a structure's nodes in pre-order as parallel lists."""

    tags: list[str] = field(default_factory=list)
    words: list[list[str]] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    siblings: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


def structure_row(structure: Node) -> StructureRow:
    """Return the first MAX_NODES nodes of a structure; what a node holds (text, src) counts among its classes."""
    row = StructureRow()

    def visit(current: Node, depth: int, sibling: int, parent: int) -> None:
        if len(row.tags) == MAX_NODES:
            return
        here = len(row.tags)
        tag, words = structure_words(current["key"])
        row.tags.append(tag)
        row.words.append([*words, *(f"={name}" for name in sorted(current["attributes"]) if name != "box")])
        row.depths.append(min(depth, DEPTHS - 1))
        row.siblings.append(min(sibling, SIBLINGS - 1))
        row.parents.append(parent)
        row.ends.append(0)
        for place, child in enumerate(current["children"]):
            visit(child, depth + 1, place, here)
        row.ends[here] = len(row.tags)

    visit(structure, 0, 0, NO_PARENT)
    return row


def pad(rows: Sequence[Sequence[int]], value: int, width: int | None = None) -> Tensor:
    """Return rows of unequal length as [len(rows), width], filled up with a value; width: the longest row."""
    width = max(map(len, rows)) if width is None else width
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.long)


def pixels(images: Sequence[np.ndarray]) -> Tensor:
    """Return pictures [S, S, 3] of bytes as [B, 3, S, S] in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return stacked.to(torch.float32).contiguous().div_(127.5).sub_(1.0)


def structures(trees: Sequence[Node | None], tags: Tags) -> dict[str, Tensor]:
    """Return the structures of a batch as tensors; a page without one has no real node."""
    rows = [StructureRow() if tree is None else structure_row(tree) for tree in trees]
    ids = pad([tags.encode(row.tags) for row in rows], PAD_ID)
    most = max(1, *(len(words) for row in rows for words in row.words))
    classes = torch.zeros(*ids.shape, most, dtype=torch.long)
    for i, row in enumerate(rows):
        if row.words:
            classes[i, : len(row.words)] = pad([tags.hashed(words) for words in row.words], 0, most)
    lengths = torch.tensor([len(row.tags) for row in rows])
    return {
        "struct_ids": ids,
        "struct_classes": classes,
        "depth": pad([row.depths for row in rows], 0),
        "sibling": pad([row.siblings for row in rows], 0),
        "struct_parent": pad([row.parents for row in rows], NO_PARENT),
        "struct_end": pad([row.ends for row in rows], 0),
        "struct_mask": torch.arange(ids.shape[1])[None] < lengths[:, None],
    }


def properties(samples: Sequence[Sample]) -> Tensor:
    """Return which of the properties each page has, [B, 3]."""
    return torch.tensor([[float(name in sample["props"]) for name in PROPS] for sample in samples])

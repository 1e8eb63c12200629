"""Layout quality: how near a predicted tree is to the true one, whether it is valid, and how its boxes lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from trainkit import SumMetric

from .frechet import features, frechet_distance, moment_sums
from .geometry import alignment, overlap, overlapping
from .matching import Elements, element_iou, elements_of, max_iou
from .tallies import SIDES, layouts_of, moments_of, tally
from .tree_edit import similarity, tree_edit_distance
from .trees import Nodes, Tree, nodes_of
from .validity import is_valid, known_sources

Level = Literal["key", "base"]
Amounts = Iterator[tuple[str, float]]


class LayoutQuality(SumMetric):
    """Compare predicted layouts with true ones as trees, and judge their validity and their geometry.

    Rules are those of 6.1, 6.3 and 8.1. Every figure is a mean over layouts unless its name says otherwise; where the
    data lacks what a figure needs (structures, boxes), it is NaN. Only nodes that have a box take part in geometry.

    Args:
        level: what names a node when trees are compared: its whole key with its sources, or its base alone.
        bases: the bases that may occur in a valid tree; any, if empty.
        sourceless: bases that need no source in a valid tree, where there is a structure to take sources from.
    """

    def __init__(
        self,
        level: Level = "key",
        bases: tuple[str, ...] = (),
        sourceless: tuple[str, ...] = ("column", "freedom"),
    ) -> None:
        super().__init__()
        self.level: Level = level
        self.bases, self.sourceless = frozenset(bases), frozenset(sourceless)

    def update(
        self,
        predicted_layouts: Sequence[Tree],
        target_layouts: Sequence[Tree],
        structures: Sequence[Tree | None] | None = None,
    ) -> None:
        """Add a batch: for each sample the predicted and the true layout, and the structure or None."""
        amounts: defaultdict[str, float] = defaultdict(float)
        sides = [[nodes_of(tree) for tree in layouts] for layouts in (predicted_layouts, target_layouts)]
        structures = [None] * len(target_layouts) if structures is None else structures
        for predicted, target, tree in zip(*sides, structures, strict=True):
            structure = None if tree is None else nodes_of(tree)
            for name, amount in self._amounts(predicted, target, structure):
                amounts[name] += amount
        for side, layouts in zip(SIDES, sides, strict=True):
            for names, amount in moment_sums(map(features, layouts)).items():
                amounts[tally("feature", side, names)] += amount
        self.add(**amounts)

    def _amounts(self, predicted: Nodes, target: Nodes, structure: Nodes | None) -> Amounts:
        yield "layouts", 1
        yield "valid", is_valid(predicted, structure, self.bases, self.sourceless)
        if structure is not None:
            known, sources = known_sources(predicted, structure)
            yield "known_sources", known
            yield "sources", sources
        if predicted.keys or target.keys:
            yield "trees", 1
            yield "similarity", self._similarity(predicted, target)
        yield from _geometry("predicted", predicted)
        yield from _geometry("target", target)
        # A layout without nodes has nothing right; one whose nodes have no boxes cannot be judged.
        if target.boxed and (predicted.boxed or not predicted.keys):
            pair = [_elements(layout) for layout in (predicted, target)]
            yield "pairs", 1
            yield "element_iou", element_iou(*pair)
            for side, layout in zip(SIDES, pair, strict=True):
                yield tally("layout", side, layout), 1

    def _similarity(self, predicted: Nodes, target: Nodes) -> float:
        one, other = (
            layout.keys if self.level == "key" else [key.base for key in layout.parsed]
            for layout in (predicted, target)
        )
        distance = tree_edit_distance(one, predicted.parents, other, target.parents)
        return similarity(distance, len(one), len(other))

    def compute(self) -> dict[str, float]:
        """Return `tree-similarity` first, then validity, geometry beside that of the truth, and `fd_handcrafted`."""
        return {
            "tree-similarity": self.ratio("similarity", "trees"),
            "valid-tree-rate": self.ratio("valid", "layouts"),
            "source-validity": self.ratio("known_sources", "sources"),
            "element-iou": self.ratio("element_iou", "pairs"),
            "max-iou": max_iou(*(layouts_of(self.sums, side) for side in SIDES)),
            "alignment": self.ratio("predicted_alignment", "predicted_boxed"),
            "alignment-target": self.ratio("target_alignment", "target_boxed"),
            "overlap": self.ratio("predicted_overlap", "predicted_boxed"),
            "overlap-target": self.ratio("target_overlap", "target_boxed"),
            "overlap-iou": self.ratio("predicted_overlap_iou", "predicted_overlapping"),
            "fd_handcrafted": self._frechet_distance(),
        }

    def _frechet_distance(self) -> float:
        count = self.total("layouts")
        if count < 2:
            return float("nan")
        one, other = moments_of(self.sums, count)
        return frechet_distance(*one, *other)


def _geometry(side: str, layout: Nodes) -> Amounts:
    if layout.boxed:
        boxes, nested = layout.boxes[layout.boxed], layout.within[np.ix_(layout.boxed, layout.boxed)]
        total, pairs = overlapping(boxes, nested)
        yield f"{side}_boxed", 1
        yield f"{side}_alignment", alignment(boxes, nested)
        yield f"{side}_overlap", overlap(boxes, nested)
        yield f"{side}_overlap_iou", total
        yield f"{side}_overlapping", pairs


def _elements(layout: Nodes) -> Elements:
    return elements_of([layout.parsed[i].base for i in layout.boxed], layout.boxes[layout.boxed])

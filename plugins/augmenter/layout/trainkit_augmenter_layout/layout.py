"""The augmenter 'layout': another screenshot and another structure of the same section, still one sample."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from trainkit.contracts import Sample
from trainkit.nested import Inner, built

from .rules import fault_of, has_boxes

InnerAugmenter = Annotated[Any, Inner("augmenter")]
# What is said of an augmenter that does not tell what it did: it may have done anything.
UNKNOWN = "unknown"
CHANGES_ORDER = frozenset({"reorder", "drop", UNKNOWN})
CHANGES_PLACES = frozenset({"spatial", UNKNOWN})


class LayoutAugmenter:
    """Change structure and screenshot of a sample, each by its own augmenter, by one draw for both.

    Everything goes with everything but one pair [5.3]: where the order or the number of elements changes, the picture's
    geometry may change only if the sample has boxes; otherwise one of the two is taken, each as likely. The result must
    keep the rules of 8.1 for trees: sources exist, are used once and lead from parent to child, and the layout is not
    empty. A sample that would break them stays as it was.

    An inner augmenter may have `changes(sample, generator)`, which returns the sample and the names of what was done,
    among them 'reorder', 'drop' and 'spatial'; one without it is taken to do anything.

    Args:
        screenshot: augmenter of the picture, and of the boxes with it.
        structure: augmenter of the structure, and of the layout with it.
    """

    reads = frozenset({"image", "structure", "layout"})

    def __init__(self, screenshot: InnerAugmenter = "screenshot", structure: InnerAugmenter = "structure") -> None:
        self.screenshot = built("augmenter", screenshot)
        self.structure = built("augmenter", structure)

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return a changed copy of the sample; equal generators give equal copies."""
        return self.changes(sample, generator)[0]

    def changes(self, sample: Sample, generator: np.random.Generator) -> tuple[Sample, frozenset[str]]:
        """Return what a call returns, and the names of what was done."""
        # Each has a stream of its own: how much one draws does not change the other.
        for_structure, for_picture, coin = generator.integers(2**63, size=3).tolist()
        structured, edits = _made(self.structure, sample, for_structure)
        result, moves = _made(self.screenshot, structured, for_picture)
        if not are_compatible(edits, moves, has_boxes(sample)):
            if coin % 2:
                result, moves = structured, frozenset()
            else:
                (result, moves), edits = _made(self.screenshot, sample, for_picture), frozenset()
        if fault_of(result):
            return sample, frozenset()
        return result, edits | moves


def are_compatible(edits: frozenset[str], moves: frozenset[str], boxed: bool) -> bool:
    """Return whether edits of a structure go together with changes of a picture [5.3].

    Args:
        edits: what was done to the structure, by name.
        moves: what was done to the picture, by name.
        boxed: whether the sample has boxes, which say where each element is now.
    """
    return boxed or not (edits & CHANGES_ORDER and moves & CHANGES_PLACES)


def _made(augmenter: Any, sample: Sample, seed: int) -> tuple[Sample, frozenset[str]]:
    generator = np.random.Generator(np.random.PCG64(seed))
    if hasattr(augmenter, "changes"):
        result, names = augmenter.changes(sample, generator)
        return result, frozenset(names)
    result = augmenter(sample, generator)
    return result, frozenset() if result is sample else frozenset({UNKNOWN})

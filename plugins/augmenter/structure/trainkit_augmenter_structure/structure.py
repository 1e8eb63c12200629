"""The augmenter 'structure': other pages that mean the same, or a part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from trainkit.contracts import Sample

from .linked import Linked, Tree, link
from .operations import drop, flatten, placeholder, reorder, substitute, wrap

Probability = Annotated[float, Field(ge=0, le=1)]
Operation = Callable[[Linked, np.random.Generator], bool]
MAX_DEPTH = 12
REORDER_WITHOUT_PICTURE = 0.6


class StructureAugmenter:
    """Change the structure of a page and, in step, the layout that refers to it.

    Rules and invariants are those of 5.3. Each edit is drawn with its probability, made on copies, and kept only if
    every source in the layout still names the node it named before and the page is at most 12 levels deep (or as deep
    as it was). A sample without a structure passes unchanged. The screenshot is not changed: reordering, which it would
    contradict, is off by default where there is one.

    Args:
        reorder: probability of permuting the children of one node; if not set, 0.6 for samples without a picture and
            0 for others.
        substitute: probability of replacing classes by synonyms, each class with probability 1/2.
        wrap: probability of one more wrapper around one to four siblings.
        flatten: probability of collapsing two nested nodes that the layout merges.
        placeholder: probability of replacing all texts by placeholders.
        drop: probability of dropping subtrees.
        drop_node: probability with which a node is dropped then.
    """

    reads = frozenset({"structure", "layout"})

    def __init__(
        self,
        reorder: Probability | None = None,
        substitute: Probability = 0.3,
        wrap: Probability = 0.25,
        flatten: Probability = 0.2,
        placeholder: Probability = 0.4,
        drop: Probability = 0.1,
        drop_node: Probability = 0.1,
    ) -> None:
        self.reorder = reorder
        self.probabilities: Mapping[str, float] = {
            "substitute": substitute,
            "wrap": wrap,
            "flatten": flatten,
            "drop": drop,
            "placeholder": placeholder,
        }
        self.drop_node = drop_node

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return a changed copy of the sample; equal generators give equal copies."""
        return self.changes(sample, generator)[0]

    def changes(self, sample: Sample, generator: np.random.Generator) -> tuple[Sample, frozenset[str]]:
        """Return what a call returns, and the names of the edits made: for augmenters that combine others."""
        if sample["structure"] is None:
            return sample, frozenset()
        structure, layout = sample["structure"], sample["layout"]
        made = set()
        for name, operation in self._drawn(sample.get("image") is not None, generator):
            before = structure
            structure, layout = edited(structure, layout, operation, generator)
            if structure is not before:
                made.add(name)
        return {**sample, "structure": structure, "layout": layout}, frozenset(made)

    def _drawn(self, has_picture: bool, generator: np.random.Generator) -> Iterator[tuple[str, Operation]]:
        unset = 0.0 if has_picture else REORDER_WITHOUT_PICTURE
        probabilities = {"reorder": unset if self.reorder is None else self.reorder, **self.probabilities}
        draws = generator.random(len(probabilities))
        operations = {**_OPERATIONS, "drop": self._drop}
        for (name, probability), draw in zip(probabilities.items(), draws, strict=True):
            if draw < probability:
                yield name, operations[name]

    def _drop(self, pair: Linked, generator: np.random.Generator) -> bool:
        return drop(pair, generator, self.drop_node)


_OPERATIONS: Mapping[str, Any] = {
    "reorder": reorder,
    "substitute": substitute,
    "wrap": wrap,
    "flatten": flatten,
    "placeholder": placeholder,
}


def edited(structure: Tree, layout: Tree, operation: Operation, generator: np.random.Generator) -> tuple[Tree, Tree]:
    """Return both trees after an edit, or as they were where the edit does not apply or breaks a rule."""
    pair = link(structure, layout)
    if pair is None:
        return structure, layout
    deepest = max(MAX_DEPTH, pair.page.depth())
    if not operation(pair, generator) or pair.page.depth() > deepest:
        return structure, layout
    page, target = pair.page.tree(), pair.layout.tree()
    again = link(page, target)
    if again is None or again.links() != pair.links():
        return structure, layout
    return page, target

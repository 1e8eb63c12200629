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


class StructureAugmenter:
    """Change the structure of a page and, in step, the layout that refers to it.

    Rules and invariants are those of 5.3. Each edit is drawn with its probability, made on copies, and kept only if
    every source in the layout still names the node it named before and the page is at most 12 levels deep (or as deep
    as it was). A sample without a structure passes unchanged. The screenshot is not changed: reordering, which it would
    contradict, is off by default.

    Args:
        reorder: probability of permuting the children of one node.
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
        reorder: Probability = 0.0,
        substitute: Probability = 0.3,
        wrap: Probability = 0.25,
        flatten: Probability = 0.2,
        placeholder: Probability = 0.4,
        drop: Probability = 0.1,
        drop_node: Probability = 0.1,
    ) -> None:
        self.probabilities: Mapping[str, float] = {
            "reorder": reorder,
            "substitute": substitute,
            "wrap": wrap,
            "flatten": flatten,
            "drop": drop,
            "placeholder": placeholder,
        }
        self.drop_node = drop_node

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return a changed copy of the sample; equal generators give equal copies."""
        if sample["structure"] is None:
            return sample
        structure, layout = sample["structure"], sample["layout"]
        for operation in self._drawn(generator):
            structure, layout = edited(structure, layout, operation, generator)
        return {**sample, "structure": structure, "layout": layout}

    def _drawn(self, generator: np.random.Generator) -> Iterator[Operation]:
        draws = generator.random(len(self.probabilities))
        operations = {**_OPERATIONS, "drop": self._drop}
        for (name, probability), draw in zip(self.probabilities.items(), draws, strict=True):
            if draw < probability:
                yield operations[name]

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

"""The terms: their weights, what they need of a batch, and the stage of a curriculum that each comes in with."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

Term = Literal["tokens", "diff", "element", "geom", "props", "aes", "align", "div", "consistency"]

# Weights of the layout domain [impl]; `tokens` stands in for `diff` and `element` where nothing is said of slots.
WEIGHTS: dict[str, float] = {
    "tokens": 1.0,
    "diff": 1.0,
    "element": 1.0,
    "geom": 0.5,
    "props": 0.2,
    "aes": 0.1,
    "align": 0.3,
    "div": 0.1,
    "consistency": 0.2,
}
# What dynamic weights may be given to.
WEIGHED = ("tokens", "diff", "element", "geom", "props")
# `geom` is in the first stage [reading]: looks can only be judged of boxes that were learned.
STAGE = {"aes": 2, "props": 2, "div": 3, "consistency": 3}
STAGES = 3
# The inner loss that a term comes from.
INNER = {
    "tokens": "tokens",
    "diff": "diffusion",
    "element": "element",
    "align": "element",
    "consistency": "consistency",
}
NEEDS = {
    "diff": ("masked",),
    "geom": ("boxes", "box_mask", "box_predictions"),
    "props": ("props", "props_logits"),
    "aes": ("box_mask", "box_predictions"),
    "consistency": ("scale_logits",),
}
OWN = (*dict.fromkeys(name for names in NEEDS.values() for name in names), "sources", "tree_parent", "mask_rate")


def has_slots(names: Collection[str]) -> bool:
    """Return whether a batch and outputs of these names speak of slots with sources, not of tokens alone."""
    return "masked" in names or "sources" in names


def is_given(term: str, names: Collection[str]) -> bool:
    """Return whether a batch and outputs of these names have what a term needs, as far as it is known beforehand."""
    if term in ("tokens", "element", "align"):
        return has_slots(names) == (term != "tokens")
    return set(NEEDS.get(term, ())) <= set(names)


def curriculum_stage(index: int, stages: int) -> int:
    """Return the stage of the curriculum, 1 to 3, in stage `index` of a plan of so many stages.

    Stages count from the first, but the last of a plan is always the third, and the one before it at least the second
    [reading]: a plan of one stage trains every term.
    """
    return max(min(index + 1, STAGES), STAGES - (stages - 1 - index))

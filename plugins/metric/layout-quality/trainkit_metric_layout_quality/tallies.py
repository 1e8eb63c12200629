"""Named amounts whose names are made of data: what was seen, how often, as sums that merge."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .frechet import mean_and_covariance
from .matching import Elements
from .trees import Floats

SIDES = ("predicted", "target")


def tally(kind: str, side: str, item: Any) -> str:
    """Return the name of the sum that counts an item, made of texts, numbers and tuples of them."""
    return f"{kind} {side} {json.dumps(item)}"


def tallied(sums: Mapping[str, Any], kind: str, side: str) -> Iterator[tuple[Any, float]]:
    """Yield the items counted under a kind and a side, tuples again, with their sums."""
    start = f"{kind} {side} "
    for name, amount in sums.items():
        if name.startswith(start):
            yield _tuples(json.loads(name[len(start) :])), float(amount)


def layouts_of(sums: Mapping[str, Any], side: str) -> dict[Elements, int]:
    """Return the layouts with boxes of a side, each with how often it was seen."""
    return {layout: round(count) for layout, count in tallied(sums, "layout", side)}


def moments_of(sums: Mapping[str, Any], count: float) -> list[tuple[Floats, Floats]]:
    """Return mean and covariance of the features of both sides, over the names that either of them has."""
    sides = [dict(tallied(sums, "feature", side)) for side in SIDES]
    names = sorted({names[0] for side in sides for names in side})
    return [mean_and_covariance(side, names, count) for side in sides]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value

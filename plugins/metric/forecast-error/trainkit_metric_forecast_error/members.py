"""Names of rows: FIGURE/TARGET, FIGURE/step-H and FIGURE/series/NAME, which can be told apart and never collide."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from .figures import Figure, Values

STEP = re.compile(r"step-\d+")
MOST_SERIES, WORST = 32, 3
HIGHER_IS_BETTER = frozenset({"coverage"})


def row_names(names: Iterable[str]) -> list[str]:
    """Return a name for the row of each of these: one piece of a tag, no step, and each only once."""
    taken: dict[str, None] = {}
    for name in names:
        row = name.replace("/", "_")
        while row in taken or STEP.fullmatch(row):
            row += "_"
        taken[row] = None
    return list(taken)


def worst(figure: Figure, values: Values) -> list[int]:
    """Return the places of the three worst values of a figure, the worst first; those that cannot be told never."""
    order = np.argsort(values if figure in HIGHER_IS_BETTER else -values, kind="stable")
    return [int(place) for place in order if np.isfinite(values[place])][:WORST]

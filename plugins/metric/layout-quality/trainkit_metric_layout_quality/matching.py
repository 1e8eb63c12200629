"""Maximum IoU: elements matched within their labels, layouts within their multisets of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from .geometry import iou
from .trees import Floats

# A layout as it can be counted: its elements, sorted, each a label and a box.
Elements = tuple[tuple[str, tuple[float, ...]], ...]
MOST_OF_A_KIND = 64


def elements_of(labels: Sequence[str], boxes: Floats) -> Elements:
    """Return elements in an order that does not depend on where they stood."""
    return tuple(sorted(zip(labels, map(tuple, boxes.tolist()), strict=True)))


def best_total(values: Floats) -> float:
    """Return the largest sum of values [rows, columns] over pairings of rows with columns."""
    # Half a second that only an evaluation needs.
    from scipy.optimize import linear_sum_assignment

    return float(values[linear_sum_assignment(values, maximize=True)].sum())


def element_iou(one: Elements, other: Elements) -> float:
    """Return the largest sum of IoU over pairings of elements of equal label, per element of the longer layout.

    With the same multiset of labels on both sides it is that of 2108.00871; an element that finds no partner counts as
    0.  [reading: the paper compares equal multisets only]

    Raises:
        ZeroDivisionError: both layouts are empty.
    """
    longer = max(len(one), len(other))
    if not one or not other:
        return 0 / longer
    allowed = np.array([[a == b for b, _ in other] for a, _ in one])
    values = np.where(allowed, iou(_boxes(one), _boxes(other)), 0)
    return best_total(values) / longer


def max_iou(predicted: Mapping[Elements, int], target: Mapping[Elements, int]) -> float:
    """Return the largest sum of element IoU over pairings of layouts with the same labels, per layout.

    A predicted layout for whose labels there is no target counts as 0 (public code leaves it out, which rewards one
    lucky hit).  [paper: 2108.00871; reading: what finds no partner] Kinds of more than MOST_OF_A_KIND layouts are
    compared in sorted blocks of that size, which can only make the figure smaller.

    Args:
        predicted: how often each layout was predicted.
        target: how often each layout is true.

    Returns:
        A number in [0, 1]; NaN without layouts.
    """
    layouts = max(sum(predicted.values()), sum(target.values()))
    if not layouts:
        return float("nan")
    targets = _by_labels(target)
    total = 0.0
    for labels, ours in _by_labels(predicted).items():
        theirs = targets.get(labels, [])
        for start in range(0, min(len(ours), len(theirs)), MOST_OF_A_KIND):
            block = slice(start, start + MOST_OF_A_KIND)
            values = np.array([[element_iou(a, b) for b in theirs[block]] for a in ours[block]])
            total += best_total(values)
    return total / layouts


def _by_labels(layouts: Mapping[Elements, int]) -> dict[tuple[str, ...], list[Elements]]:
    kinds: dict[tuple[str, ...], list[Elements]] = {}
    for layout in sorted(Counter(layouts).elements()):
        kinds.setdefault(tuple(label for label, _ in layout), []).append(layout)
    return kinds


def _boxes(layout: Elements) -> Floats:
    return np.array([box for _, box in layout])

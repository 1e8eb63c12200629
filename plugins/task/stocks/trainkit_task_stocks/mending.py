"""A price fault, its net effect beside others, and the prices without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from .bars import PRICES, Numbers


@dataclass(frozen=True)
class Fault:
    """Hold a price fault.

    Args:
        rule: 'missed split', 'wrong unit', 'off level' or 'off cell'.
        first: its first row.
        last: the row after its last one.
        columns: which of open, high, low, close are off.
        ratio: of faulty to right prices; None where it is that of no split and no unit.
        with_volume: whether the volume moved by the inverse.
        why: what speaks for it.
    """

    rule: str
    first: int
    last: int
    columns: tuple[int, ...]
    ratio: float | None
    with_volume: bool
    why: str


def mended(prices: Numbers, volume: Numbers, fault: Fault) -> tuple[Numbers, Numbers]:
    """Return prices [N, 4] and volume [N] without a fault: brought to the right level, or NaN where that is unknown."""
    prices, volume = prices.copy(), volume.copy()
    rows = slice(fault.first, fault.last)
    columns = list(fault.columns)
    if fault.ratio is None:
        prices[rows, columns] = np.nan
        return prices, volume
    prices[rows, columns] = scaled(prices[rows, columns], fault.ratio)
    if fault.with_volume:
        volume[rows] = np.round(scaled(volume[rows], 1 / fault.ratio))
    return prices, volume


def scaled(values: Numbers, ratio: float) -> Numbers:
    """Return values / ratio; times the inverse where that is a whole number, which leaves less to round."""
    inverse = round(1 / ratio) if ratio < 1 else 0
    return np.asarray(values * inverse if inverse and abs(1 / ratio - inverse) < 1e-9 * inverse else values / ratio)


def merged(faults: Sequence[Fault], rows: int) -> list[Fault]:
    """Return faults by their net effect: a stretch in hundredths within one that is 100 times too high is right."""
    shift, moved, lost = np.zeros(rows), np.zeros(rows, bool), np.zeros(rows, bool)
    cells = [fault for fault in faults if len(fault.columns) < len(PRICES)]
    whole = [fault for fault in faults if len(fault.columns) == len(PRICES)]
    for fault in whole:
        if fault.ratio is None:
            lost[fault.first : fault.last] = True
        else:
            shift[fault.first : fault.last] += np.log(fault.ratio)
            moved[fault.first : fault.last] |= fault.with_volume
    shift = np.where(lost | (np.abs(shift) < 1e-9), 0.0, shift)
    moved &= shift != 0
    edges = np.flatnonzero((np.abs(np.diff(shift)) > 1e-9) | (np.diff(lost) != 0) | (np.diff(moved) != 0)) + 1
    net = []
    for first, last in pairwise([0, *edges.tolist(), rows]):
        if shift[first] == 0 and not lost[first]:
            continue
        ratio = None if lost[first] else _exact(float(np.exp(shift[first])))
        over = [fault for fault in whole if fault.first <= first and last <= fault.last]
        alike = [fault for fault in over if (fault.ratio is None) == (ratio is None) and _like(fault.ratio, ratio)]
        told = (alike or over)[-1]
        why = told.why if alike else f"prices are {shown(ratio or 1.0)} of their neighbours"
        net.append(replace(told, first=first, last=last, ratio=ratio, with_volume=bool(moved[first]), why=why))
    return sorted([*net, *cells], key=lambda fault: (fault.first, fault.columns))


def _like(one: float | None, other: float | None) -> bool:
    return one is None or other is None or abs(one / other - 1) < 1e-6


def _exact(ratio: float) -> float:
    """Return a ratio without the rounding of logarithms where it, or its inverse, is a whole number."""
    for value in (ratio, 1 / ratio):
        if value > 0.5 and abs(value - round(value)) < 1e-6 * value:
            return float(round(value)) if value == ratio else 1 / round(value)
    return ratio


def shown(ratio: float) -> str:
    """Return a ratio for people: 'x5' or '1/5'."""
    inverse = 1 / ratio
    if ratio < 1 and abs(inverse - round(inverse)) < 1e-6:
        return f"1/{round(inverse)}"
    return f"x{ratio:.6g}"

"""What tells a price fault from a real move: ratios of splits and units, noise of the neighbourhood, volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bars import Numbers
from .rules import NORMAL

# Ratios of new to old shares; each may be the wrong way round, too. The weak ones are also the size of real moves.
SPLITS = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0)
WEAK_SPLITS = (1.5,)
# Pence for pounds, cents for rand; fils for dinars.
UNITS = (100.0, 1000.0)
NEIGHBOURS = 20
NEAR_SPLIT = 10
SURGE = 3.0


@dataclass(frozen=True)
class Ratio:
    """Hold the ratio that a shift of prices is taken for.

    Args:
        value: of faulty to right prices.
        source: 'split', 'weak split' (of 3:2), 'unit', or 'splits column'.
    """

    value: float
    source: str


def noise(steps: Numbers, at: int) -> float:
    """Return the larger robust deviation of the steps before and after one, that one left out.

    That of a side is the larger of 1.4826 times the median and the 90th percentile / 1.645 of at most 20 absolute
    steps, so that a calm share with some real moves is not called calm. Steps by the factor of a unit do not count.
    """
    sides = [steps[max(0, at - NEIGHBOURS) : at], steps[at + 1 : at + 1 + NEIGHBOURS]]
    found = [0.002]
    for side in sides:
        sizes = np.abs(side)
        sizes = sizes[np.abs(sizes - np.log(UNITS[0])) > 0.5]
        if len(sizes) >= 3:
            found.append(NORMAL * float(np.median(sizes)))
        if len(sizes) >= 10:
            found.append(float(np.quantile(sizes, 0.9)) / 1.645)
    return max(found)


def nearest_ratio(shift: float, sigma: float, announced: Numbers) -> Ratio | None:
    """Return the ratio that a shift of log prices is close to, or None.

    Args:
        shift: log of faulty to right prices.
        sigma: noise of one step.
        announced: ratios that the column of splits names nearby; they may be farther off than others: by 4 sigma or
            30 %.
    """
    for ratio in announced:
        size = abs(float(np.log(ratio)))
        if abs(abs(shift) - size) <= min(max(4 * sigma, 0.3 * size), 0.5 * size):
            return Ratio(float(np.exp(np.copysign(size, shift))), "splits column")
    close = min(max(3 * sigma, 0.02), 0.12)
    # Nothing but a unit moves a price by so much: a real move on the same day may be large.
    known = [("unit", UNITS, 0.3), ("split", SPLITS, close), ("weak split", WEAK_SPLITS, close)]
    distances = [
        (abs(abs(shift) - float(np.log(value))), source, value, most)
        for source, values, most in known
        for value in values
    ]
    distance, source, value, most = min(distances)
    if distance > most:
        return None
    return Ratio(value if shift > 0 else 1 / value, source)


def announced_near(splits: Numbers | None, first: int, last: int) -> Numbers:
    """Return the ratios that the column of splits names within 10 rows of a stretch."""
    if splits is None:
        return np.zeros(0)
    near = splits[max(0, first - NEAR_SPLIT) : last + NEAR_SPLIT]
    return np.asarray(near[np.isfinite(near) & (near > 0) & (near != 1)])


def is_surge(volume: Numbers, price: Numbers, first: int, last: int) -> bool:
    """Return whether more than three times the usual shares or money changed hands: what a real move brings.

    The usual is the larger median of the 20 rows before and after, as a split alone moves one of them.

    Args:
        volume: [N].
        price: [N].
        first: row.
        last: the row after the last one.
    """
    return any(_is_surge(traded, first, last) for traded in (volume, volume * price))


def _is_surge(traded: Numbers, first: int, last: int) -> bool:
    sides = [traded[max(0, first - NEIGHBOURS) : first], traded[last : last + NEIGHBOURS]]
    usual = max((float(np.median(side)) for side in sides if len(side)), default=0.0)
    return float(traded[first:last].max()) > SURGE * usual


def moves_volume(volume: Numbers, inside: slice, outside: list[slice], shift: float) -> bool:
    """Return whether volume moved by the inverse of prices, as it does in an adjusted split but not in a unit error."""
    within = volume[inside]
    beside = np.concatenate([volume[part] for part in outside])
    within, beside = within[within > 0], beside[beside > 0]
    if not len(within) or not len(beside):
        return False
    moved = float(np.log(np.median(within) / np.median(beside)))
    return moved / -shift > 0.5

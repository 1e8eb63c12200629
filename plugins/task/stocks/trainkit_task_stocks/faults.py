"""Price faults that only the neighbours show: missed splits, prices in hundredths, bars and cells off their level.

A level that is left and found again, a ratio as of a split or a unit, the column of splits, volume that moves by the
inverse, and calm neighbours speak for a fault; a surge of volume and a move without return for a real jump. The rules
and thresholds are ours; kinds of faults and their names are those of the public test data of yfinance.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .bars import PRICES, Ints, Numbers
from .evidence import Ratio, announced_near, is_surge, moves_volume, nearest_ratio, noise
from .mending import Fault, mended, merged, scaled, shown

LEAST_SHIFT = float(np.log(1.25))
FARTHEST = float(np.log(20))
MOST_BARS_OFF = 3
EDGES_LOOKED_AT = 8
MOST_PASSES = 50


def find_faults(prices: Numbers, volume: Numbers, splits: Numbers | None = None) -> list[Fault]:
    """Return price faults: none overlaps another but for cells, and their order does not matter.

    Args:
        prices: [N, 4] open, high, low, close in order of time; rows with a price that is not above 0 are looked over.
        volume: [N].
        splits: [N] new to old shares on days of splits, else 0; None where no column tells.
    """
    if not len(prices):
        return []
    searched: list[Fault] = []
    now, amount = prices, volume
    for _ in range(MOST_PASSES):
        found = _pass(now, amount, splits)
        for fault in found:
            now, amount = mended(now, amount, fault)
        searched += found
        if not found:
            break
    return merged(searched, len(prices))


def _pass(prices: Numbers, volume: Numbers, splits: Numbers | None) -> list[Fault]:
    """Return faults that can be seen at once; others come out when these are mended."""
    usable = np.flatnonzero((np.isfinite(prices) & (prices > 0)).all(axis=1))
    if len(usable) < 3:
        return []
    part = _Part(prices[usable], volume[usable], None if splits is None else splits[usable])
    return [_placed(fault, usable, len(prices)) for fault in _cells(part) or _returning(part) or _lasting(part)]


def _placed(fault: Fault, usable: Ints, rows: int) -> Fault:
    """Return a fault of usable rows as one of all rows: the others share the level of those around them."""
    first = int(usable[fault.first]) if fault.first else 0
    if len(fault.columns) < len(PRICES):
        first = int(usable[fault.first])
        return replace(fault, first=first, last=first + 1)
    return replace(fault, first=first, last=int(usable[fault.last]) if fault.last < len(usable) else rows)


class _Part:
    """Hold usable rows and what is asked of them more than once."""

    def __init__(self, prices: Numbers, volume: Numbers, splits: Numbers | None) -> None:
        self.prices, self.splits = prices, splits
        self.volume = np.nan_to_num(np.maximum(volume, 0), posinf=0.0)
        self.logs = np.log(prices)
        self.level = np.median(self.logs, axis=1)
        self.steps = np.diff(self.level)

    def __len__(self) -> int:
        return len(self.prices)

    def is_surge(self, first: int, last: int) -> bool:
        """Return whether unusually much was traded in rows."""
        return is_surge(self.volume, np.exp(self.level), first, last)

    def edges(self) -> list[int]:
        """Return rows whose level is far from that of the row before."""
        large = np.flatnonzero(np.abs(self.steps) >= LEAST_SHIFT)
        return [int(at) + 1 for at in large if abs(self.steps[at]) >= 4 * noise(self.steps, int(at))]

    def spread(self) -> Numbers:
        """Return [N] log of high to low, as cells would have it without the farthest of the four."""
        ordered = np.sort(self.logs, axis=1)
        return np.asarray(np.minimum(ordered[:, 2] - ordered[:, 0], ordered[:, 3] - ordered[:, 1]))


def _cells(part: _Part) -> list[Fault]:
    """Return single prices that are off by a known ratio from the others of their row, which fit the neighbours."""
    others = np.stack([np.median(np.delete(part.logs, column, axis=1), axis=1) for column in range(4)], axis=1)
    away = part.logs - others
    spread = part.spread()
    usual = float(np.median(spread))
    found: dict[int, Fault] = {}
    rows, columns = np.nonzero((np.abs(away) >= LEAST_SHIFT) & (np.abs(away) > 3 * spread[:, None]))
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if row in found or not _fits_neighbours(part, row, float(others[row, column]), 0.5 * abs(away[row, column])):
            continue
        fault = _cell(part, row, column, float(away[row, column]), float(spread[row]), usual)
        if fault is not None:
            found[row] = fault
    return list(found.values()) or _split_bars(part, spread)


def _fits_neighbours(part: _Part, row: int, level: float, most: float) -> bool:
    near = [n for n in range(row - 3, row + 4) if 0 <= n < len(part) and n != row]
    return bool(np.abs(part.level[near] - level).min() <= most)


def _cell(part: _Part, row: int, column: int, shift: float, spread: float, usual: float) -> Fault | None:
    sigma = max(noise(part.steps, min(max(row - 1, 0), len(part.steps) - 1)), usual)
    # Cells of a bar differ by its range, too.
    ratio = nearest_ratio(shift, sigma + (spread + usual) / 3, announced_near(part.splits, row, row + 1))
    if ratio is None or ratio.source == "weak split":
        return None
    contradicts = _contradicts(part.prices[row], 1e-6)
    if not contradicts and ratio.source != "unit" and (abs(shift) < 12 * sigma or part.is_surge(row, row + 1)):
        return None
    cured = part.prices[row].copy()
    cured[column] = scaled(cured[column : column + 1], ratio.value)[0]
    if contradicts and _contradicts(cured, max(sigma, 0.01)):
        return None
    return _off_cell(row, column, ratio)


def _split_bars(part: _Part, spread: Numbers) -> list[Fault]:
    """Return prices in another unit of bars half of whose prices are: by the level of the bars beside."""
    found = []
    for row in np.flatnonzero(spread > FARTHEST).tolist():
        near = [n for n in range(row - 3, row + 4) if 0 <= n < len(part) and spread[n] <= FARTHEST]
        if not near:
            continue
        shifts = part.logs[row] - float(np.median(part.level[near]))
        ratios = [nearest_ratio(float(shift), 0.0, np.zeros(0)) if abs(shift) > 1 else None for shift in shifts]
        if (np.abs(shifts) < LEAST_SHIFT).any():
            found += [_off_cell(row, n, ratio) for n, ratio in enumerate(ratios) if ratio and ratio.source == "unit"]
    return found


def _off_cell(row: int, column: int, ratio: Ratio) -> Fault:
    why = f"{PRICES[column]} is {shown(ratio.value)} of the others of its row"
    return Fault(_rule(ratio, "off cell"), row, row + 1, (column,), ratio.value, False, why)


def _contradicts(row: Numbers, tolerance: float) -> bool:
    open_, high, low, close = row
    return bool(high < max(open_, close) * (1 - tolerance) or low > min(open_, close) * (1 + tolerance))


def _returning(part: _Part) -> list[Fault]:
    """Return stretches whose level is left at their end for the one before them: short ones first, none in another."""
    edges = part.edges()
    pairs = [(a, b) for n, a in enumerate(edges) for b in edges[n + 1 : n + 1 + EDGES_LOOKED_AT]]
    taken = np.zeros(len(part) + 1, bool)
    found = []
    for first, last in sorted(pairs, key=lambda pair: pair[1] - pair[0]):
        if taken[first : last + 1].any():
            continue
        if (fault := _return(part, first, last)) is not None:
            found.append(fault)
            taken[first : last + 1] = True
    return found


def _return(part: _Part, first: int, last: int) -> Fault | None:
    into, out = float(part.steps[first - 1]), float(part.steps[last - 1])
    shift = (into - out) / 2
    apart = abs(float(part.level[last] - part.level[first - 1]))
    if into * out > 0 or apart > 0.5 * abs(shift):
        return None
    sigma = max(noise(part.steps, first - 1), noise(part.steps, last - 1))
    if apart > max(4 * sigma * np.sqrt(last - first + 1), 0.05):
        return None
    wide = abs(shift) > FARTHEST
    ratio = nearest_ratio(shift, sigma, announced_near(part.splits, first, last))
    if abs(shift) < 8 * sigma and not wide and (ratio is None or ratio.source != "splits column"):
        return None
    if ratio is not None and ratio.source != "weak split" and _both_near(ratio, into, -out, sigma):
        return _stretch(part, first, last, ratio, shift, "and come back")
    lone = last - first <= MOST_BARS_OFF and _disjoint(part, first, last)
    if wide or (lone and not part.is_surge(first, last)):
        beside = "those before and after" + ("" if wide else ", without more volume")
        text = f"prices are x{np.exp(shift):.3g} of {beside}"
        return Fault("off level", first, last, (0, 1, 2, 3), None, False, text)
    return None


def _both_near(ratio: Ratio, into: float, out: float, sigma: float) -> bool:
    size = abs(float(np.log(ratio.value)))
    most = 0.5 * size if ratio.source == "splits column" else max(4 * sigma, 0.05)
    return max(abs(abs(into) - size), abs(abs(out) - size)) <= min(most, 0.5 * size)


def _disjoint(part: _Part, first: int, last: int) -> bool:
    """Return whether no bar of a stretch overlaps the bars beside it."""
    inside = part.prices[first:last]
    beside = part.prices[[first - 1, last]]
    return bool(inside[:, 1].max() < beside[:, 2].min() or inside[:, 2].min() > beside[:, 1].max())


def _lasting(part: _Part) -> list[Fault]:
    """Return all rows before the latest shift that does not come back, where it is one of a split or a unit.

    The rows after it are taken as right, as splits and new units are told backwards. Of a unit only: where no more
    than 3 rows come after it, those are off.
    """
    for edge in reversed(part.edges()):
        shift = -float(part.steps[edge - 1])
        sigma = noise(part.steps, edge - 1)
        ratio = nearest_ratio(shift, sigma, announced_near(part.splits, edge, edge))
        if ratio is None:
            continue
        after = len(part) - edge
        if ratio.source == "unit" and after <= MOST_BARS_OFF and after < edge:
            opposite = Ratio(1 / ratio.value, ratio.source)
            return [_stretch(part, edge, len(part), opposite, -shift, "up to the end")]
        known = ratio.source in ("unit", "splits column")
        calm = abs(shift) >= 12 * sigma and not part.is_surge(edge, min(edge + 2, len(part)))
        if known or (ratio.source == "split" and calm and after > MOST_BARS_OFF):
            return [_stretch(part, 0, edge, ratio, shift, "and all rows after it are not")]
    return []


def _stretch(part: _Part, first: int, last: int, ratio: Ratio, shift: float, end: str) -> Fault:
    near = slice(max(first, last - 20), last)
    beside = [slice(max(0, first - 20), first), slice(last, last + 20)]
    with_volume = moves_volume(part.volume, near, beside, shift)
    source = {"splits column": ", as the column of splits has it", "unit": ", as of a unit"}.get(ratio.source, "")
    why = f"prices are {shown(ratio.value)} of their neighbours{source}, {end}"
    why += ", and volume moved by the inverse" if with_volume else ""
    return Fault(_rule(ratio, "missed split"), first, last, (0, 1, 2, 3), ratio.value, with_volume, why)


def _rule(ratio: Ratio, other: str) -> str:
    return "wrong unit" if ratio.source == "unit" else other

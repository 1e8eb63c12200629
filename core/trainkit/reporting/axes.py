"""What line charts share, whatever they are drawn on: axes, the numbers beside them, and curves made shorter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Points = Sequence[tuple[float, float]]
Labels = Sequence[tuple[float, str]]

MAX_POINTS = 400
FEW_DECADES = 2.0


@dataclass(frozen=True)
class Band:
    """Hold what is filled in the colour of a series, paler.

    Args:
        of: name of the series.
        low: its lower bound, as (x, y) pairs in the order of x.
        high: its upper bound, over the same x.
    """

    of: str
    low: Points
    high: Points

    def outlines(self) -> list[list[tuple[float, float]]]:
        """Return the corners of its pieces, each where both bounds are finite."""
        gaps = [(x, low + high) for (x, low), (_, high) in zip(self.low, self.high, strict=True)]
        lows, highs = dict(self.low), dict(self.high)
        return [
            [(x, lows[x]) for x, _ in piece] + [(x, highs[x]) for x, _ in reversed(piece)]
            for piece in stretches(gaps)
            if len(piece) > 1
        ]


class Axis:
    """Map values to pixels.

    Args:
        low: smallest value; positive on a logarithmic axis.
        high: largest value.
        start: pixel of the smallest value.
        end: pixel of the largest value.
        log: take a logarithmic scale.
        margin: share of the span that is left free at either end.
        labels: (value, text) pairs in place of round numbers, as dates; those outside of the span are left out.
    """

    def __init__(
        self,
        low: float,
        high: float,
        start: float,
        end: float,
        log: bool = False,
        margin: float = 0.0,
        labels: Labels = (),
    ) -> None:
        self.log, self.start, self.end = log, start, end
        self.labels = {value: text for value, text in labels if low <= value <= high}
        self.low, self.high = self._scale(low), self._scale(high)
        if self.low == self.high:
            around = abs(self.low) * 0.05 or 0.5
            self.low, self.high = self.low - around, self.high + around
        free = margin * (self.high - self.low)
        self.low, self.high = self.low - free, self.high + free

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def __call__(self, value: float) -> float:
        share = (self._scale(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self) -> list[float]:
        """Return the values that get a text: round ones; on a logarithmic axis powers of ten, and 2 and 5 of few."""
        if self.labels:
            return list(self.labels)
        if not self.log:
            return ticks(self.low, self.high)
        few = self.high - self.low < FEW_DECADES
        return self._between([1, 2, 5] if few else [1])

    def text(self, value: float) -> str:
        """Return the text of a value of `ticks`."""
        return self.labels.get(value) or short(value)

    def minor_ticks(self) -> list[float]:
        """Return the values between powers of ten that a logarithmic axis marks without a number."""
        return self._between(list(range(2, 10))) if self.log else []

    def _between(self, factors: Sequence[int]) -> list[float]:
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        values = [factor * 10.0**n for n in decades for factor in factors]
        return [value for value in values if self.low - 1e-9 <= math.log10(value) <= self.high + 1e-9]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers between two values, about `count` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def thinned(points: Points, limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """Return at most about `limit` points that keep the extremes of the curve: a spike stays a spike."""
    if len(points) <= limit:
        return list(points)
    bin_size = math.ceil(len(points) / (limit // 2))
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), bin_size):
        bunch = points[start : start + bin_size]
        order = sorted(range(len(bunch)), key=lambda i: (not math.isfinite(bunch[i][1]), bunch[i][1]))
        known = [i for i in order if math.isfinite(bunch[i][1])]
        chosen = {known[0], known[-1]} if known else {0}
        if len(known) < len(bunch):
            chosen.add(next(i for i in range(len(bunch)) if not math.isfinite(bunch[i][1])))
        kept += [bunch[i] for i in sorted(chosen)]
    return kept


def stretches(points: Points) -> list[list[tuple[float, float]]]:
    """Return the stretches of a curve that lie between its gaps: where a coordinate is not finite."""
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            found[-1].append((x, y))
        elif found[-1]:
            found.append([])
    return [stretch for stretch in found if stretch]


def short(value: float) -> str:
    """Return a number in few characters: 0.25, 1200, 3e-05, 12k."""
    if not math.isfinite(value):
        return str(value)
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e")
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"

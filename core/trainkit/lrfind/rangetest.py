"""The mathematics of the learning-rate range test: which rates, when to stop, what to suggest. Nothing here trains.

Sources: Smith 2015, arXiv 1506.01186 [paper]; the moving average and the rule for stopping are those of fastai and
Lightning. Deviation: suggestions come from a curve that is smoothed to both sides, for the reason that `curve` gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

Rule = Literal["steepest", "valley", "minimum"]
Axis = Literal["log", "linear"]
RULES: tuple[Rule, ...] = get_args(Rule)
AXES: tuple[Axis, ...] = get_args(Axis)

LOW, HIGH, STEPS = 1e-8, 1.0, 100
DECAY = 0.98
WORSE = 4.0
FIRST, LAST = 10, 1
FEWEST_STEPS = FIRST + LAST + 2
DECADES = 0.25
MARGIN = 10.0
CLEAR = 8.0
ROOM = 0.35
ROUNDING = 1e-9


def rates(low: float, high: float, steps: int) -> list[float]:
    """Return rates from low to high, evenly spread in their logarithm: low (high / low)^(i / (steps - 1))."""
    return [low * (high / low) ** (i / (steps - 1)) for i in range(steps)]


def averages(losses: Sequence[float], decay: float = DECAY) -> list[float]:
    """Return the moving average of losses with its bias corrected; what comes later has no part in it."""
    found, average = [], 0.0
    for i, loss in enumerate(losses):
        average = decay * average + (1 - decay) * loss
        found.append(average / (1 - decay ** (i + 1)))
    return found


def has_exploded(averaged: Sequence[float]) -> bool:
    """Return whether the last average is more than 4 times the best, or not finite; never before the third.

    A loss that falls below 0 has no such multiple: there it may rise by 3 times the largest magnitude seen.
    """
    last, best = averaged[-1], min(averaged)
    if not math.isfinite(last):
        return True
    return len(averaged) > 2 and last > ceiling(averaged[0], best)


def ceiling(first: float, best: float) -> float:
    """Return the loss above which a test has exploded."""
    return WORSE * best if best > 0 else best + (WORSE - 1) * max(abs(first), abs(best))


def curve(tested: Sequence[float], losses: Sequence[float], decades: float = DECADES) -> list[float]:
    """Return the losses smoothed to both sides: at each rate the mean, weighted by a bell curve in log10 of the rate.

    The moving average by which a test is stopped lags behind: with a decay of 0.98 its minimum lies almost a decade too
    high. This one has no lag, and as many decades of width however many rates are tested. It flattens towards its
    ends, where a line fitted in place of the mean would take noise for a slope.

    Args:
        tested: the rates.
        losses: a loss for each.
        decades: standard deviation of the bell curve.
    """
    x, y = np.log10(np.asarray(tested)), np.asarray(losses)
    weights = np.exp(-0.5 * ((x[:, None] - x) / decades) ** 2)
    smooth: list[float] = (weights @ y / weights.sum(1)).tolist()
    return smooth


@dataclass(frozen=True)
class Suggested:
    """Hold what a rule says: a rate, or None and why there is none."""

    rate: float | None
    reason: str = ""


def steepest(tested: Sequence[float], smooth: Sequence[float], axis: Axis = "log") -> Suggested:
    """Return the rate at which a curve falls fastest: per decade, or per unit of the rate on a linear axis."""
    x = np.log10(np.asarray(tested)) if axis == "log" else np.asarray(tested)
    slopes = np.gradient(np.asarray(smooth), x)
    place = int(slopes.argmin())
    return Suggested(tested[place]) if slopes[place] < 0 else Suggested(None, NEVER_FALLS)


def valley(tested: Sequence[float], smooth: Sequence[float]) -> Suggested:
    """Return the rate in the middle of the longest stretch over which a curve falls, counted in points.

    That is the centre of its middle two thirds, which leaves out the flat beginning and the end at the bottom.
    """
    start, best = 0, (0, 0)
    for i in range(1, len(smooth)):
        if smooth[i] >= smooth[i - 1]:
            start = i
        best = max(best, (i - start, start), key=lambda found: found[0])
    length, start = best
    return Suggested(tested[start + length // 2]) if length else Suggested(None, NEVER_FALLS)


def minimum(tested: Sequence[float], smooth: Sequence[float]) -> Suggested:
    """Return a tenth of the rate at which a curve is lowest."""
    place = int(np.argmin(smooth))
    if place == 0:
        return Suggested(None, NEVER_FALLS)
    return Suggested(tested[place] / MARGIN)


NEVER_FALLS = "the loss does not fall: it is lowest at the smallest rate that counts"
SCATTERS = "the loss falls no more than it scatters: larger batches, loop.accumulate or more steps make it clearer"


def _fall(smooth: Sequence[float]) -> float:
    lowest = int(np.argmin(smooth))
    return max(smooth[: lowest + 1]) - smooth[lowest]


@dataclass(frozen=True)
class RangeTest:
    """Hold a range test: what was measured, and what follows from it.

    Args:
        rates: the rates that were tested, one an optimizer step.
        losses: the mean training loss of each step, before its update.
        rule: which suggestion counts.
        axis: the axis of the steepest slope.
        ended: what ended it: '' for the last rate, 'exploded', 'not finite', or 'interrupted'.
        signal: the signal that interrupted it.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    rule: Rule = "steepest"
    axis: Axis = "log"
    ended: str = ""
    signal: int | None = None

    @cached_property
    def counted(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the rates and losses that count: without the first 10, the last, and what is not finite."""
        finite = sum(map(math.isfinite, self.losses))
        part = slice(FIRST, min(finite, len(self.losses) - LAST))
        return self.rates[part], self.losses[part]

    @cached_property
    def smooth(self) -> list[float]:
        """Return the smoothed losses at the rates that count; a loss above where a test stops is taken as being there.

        Without that, a loss of 1e9 would lift the curve far to the left of where it exploded.
        """
        tested, losses = self.counted
        if not losses:
            return []
        averaged = averages(losses)
        most = ceiling(averaged[0], min(averaged))
        return curve(tested, [min(loss, most) for loss in losses])

    @cached_property
    def suggestions(self) -> dict[Rule, Suggested]:
        """Return what each rule says, in three digits."""
        smooth, tested = self.smooth, self.counted[0]
        if len(smooth) < 2:
            why = f"{len(smooth)} of {len(self.rates)} points are left without the first {FIRST} and the last"
            return dict.fromkeys(RULES, Suggested(None, f"{why}: two are needed"))
        by_slope = steepest(tested, smooth, self.axis)
        if by_slope.rate is None or _fall(smooth) <= ROUNDING * max(map(abs, smooth)):
            return dict.fromkeys(RULES, Suggested(None, NEVER_FALLS))
        if _fall(smooth) < CLEAR * self._scatter(smooth):
            return dict.fromkeys(RULES, Suggested(None, SCATTERS))
        found: dict[Rule, Suggested] = {
            "steepest": by_slope,
            "valley": valley(tested, smooth),
            "minimum": minimum(tested, smooth),
        }
        return {name: one if one.rate is None else Suggested(float(f"{one.rate:.3g}")) for name, one in found.items()}

    @property
    def suggestion(self) -> float | None:
        """Return the rate that the rule suggests, or None."""
        return self.suggestions[self.rule].rate

    @property
    def reason(self) -> str:
        """Return why there is no suggestion; '' where there is one."""
        return self.suggestions[self.rule].reason

    @property
    def notes(self) -> list[str]:
        """Return what to know before the suggestion is taken."""
        if self.suggestion is None or self.ended or int(np.argmin(self.smooth)) < len(self.smooth) - 1:
            return []
        return [f"the loss still falls at the largest rate, {self.rates[-1]:g}: test up to a larger one"]

    def value_range(self) -> tuple[float, float] | None:
        """Return the losses at the ends of an axis on which the fall fills most, and an explosion is cut off.

        None where there is no smoothed loss to go by.
        """
        smooth = self.smooth
        if not smooth:
            return None
        until = FIRST + smooth.index(min(smooth)) + 1
        low, high = min(*smooth, *self.counted[1]), max(smooth[0], *self.losses[:until])
        span = high - low or abs(high) or 1.0
        return (low - 0.05 * span if low < 0 else max(low - 0.05 * span, 0.0)), high + ROOM * span

    def _scatter(self, smooth: Sequence[float]) -> float:
        """Return the standard error of a smoothed loss, from how far the losses lie from it on the way down."""
        length = int(np.argmin(smooth)) + 1
        rest = np.asarray(self.counted[1][:length]) - np.asarray(smooth[:length])
        averaged = 2 * math.sqrt(math.pi) * DECADES / math.log10(self.rates[1] / self.rates[0])
        return float(np.sqrt(np.mean(rest**2) / max(1.0, averaged)))

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        suggestions = self.suggestions
        return {
            "suggestion": self.suggestion,
            "rule": self.rule,
            "axis": self.axis,
            "suggestions": {name: one.rate for name, one in suggestions.items()},
            "reasons": {name: one.reason for name, one in suggestions.items() if one.reason},
            "notes": self.notes,
            "ended": self.ended,
            "rates": list(self.rates),
            "losses": list(self.losses),
            "averages": averages(self.losses),
            "smooth": self.smooth,
        }

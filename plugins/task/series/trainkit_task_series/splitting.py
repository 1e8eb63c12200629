"""Splits by time, the same moments for all series, and the windows of each part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from trainkit.errors import DataError, UsageError

from .grid import Ints, stamp
from .panel import Panel
from .times import Times

EVER = np.iinfo(np.int64).max
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(frozen=True)
class Part:
    """Hold the times of a split.

    Args:
        name: train, val or test.
        spans: times [begin, end) that ascend; the targets of a window lie in one of them.
        whole: whether the past of a window lies there, too; else it may reach back before.
    """

    name: str
    spans: tuple[tuple[int, int], ...]
    whole: bool = False

    @property
    def begin(self) -> int:
        """Return when the part begins."""
        return self.spans[0][0]

    @property
    def end(self) -> int:
        """Return when the part ends."""
        return self.spans[-1][1]

    def holds(self, first: Times, last: Times) -> Mask:
        """Return [N] whether first [N] and last [N] lie in one span."""
        held = [(first >= begin) & (last < end) for begin, end in self.spans]
        return reduce(np.logical_or, held)

    def rows(self, panel: Panel) -> Mask:
        """Return [N] which rows of the series lie in the part."""
        return self.holds(panel.times, panel.times)


Parts = tuple[Part, Part, Part]


def parts_of(panel: Panel, fractions: tuple[float, float, float], cuts: Sequence[str], purge: int) -> Parts:
    """Return training, validation and test.

    A training window lies before validation with all its targets: the last H - 1 steps begin none.

    Args:
        panel: the series.
        fractions: shares of all rows, by time.
        cuts: when validation and test begin, and, if a third one is given, when the test ends; they go first.
        purge: steps before validation and before test that belong to no part.

    Raises:
        UsageError: fractions or cuts that are none.
    """
    begin, end = int(panel.times.min()), EVER
    if cuts:
        moments = [_moment(cut) for cut in cuts]
        if len(moments) not in (2, 3) or sorted(set(moments)) != moments:
            raise UsageError(
                f"task.cuts = {list(cuts)} must be two or three times that ascend",
                why="when validation and test begin, and when the test ends",
            )
        val, test, *rest = moments
        end = rest[0] if rest else EVER
    else:
        if abs(sum(fractions) - 1) > 1e-6 or fractions[0] <= 0:
            raise UsageError(f"task.split = {list(fractions)} must be three shares that sum to 1, the first above 0")
        times = np.sort(panel.times)
        val, test = (_nth(times, share) for share in (fractions[0], fractions[0] + fractions[1]))
    before_val, before_test = (panel.grid.earlier(moment, purge) for moment in (val, test))
    return training(((begin, before_val),)), Part("val", ((val, before_test),)), Part("test", ((test, end),))


def training(spans: tuple[tuple[int, int], ...]) -> Part:
    """Return the part whose windows lie in these spans from their first step of the past to their last target."""
    return Part("train", spans, whole=True)


def _nth(times: Times, share: float) -> int:
    # A share of 1 within rounding is the end: nothing is left for the next part.
    place = round(share * len(times))
    return int(times[place]) if place < len(times) else int(times[-1]) + 1


def _moment(text: str) -> int:
    try:
        return int(np.datetime64(text.removesuffix("Z"), "us").astype(np.int64))
    except ValueError:
        raise UsageError(f"task.cuts: {text!r} is no time", do="as 2026-01-31 or 2026-01-31T12:00") from None


def windows_of(panel: Panel, part: Part, context: int, horizon: int, stride: int, targets: int) -> Ints:
    """Return the first horizon row of each window of a part.

    A window lies within a segment, and has a measured target in its past and in its horizon.

    Args:
        panel: the series.
        part: where they lie.
        context: steps of the past.
        horizon: steps that are forecast.
        stride: steps from one window of a segment to the next.
        targets: how many of the first values are targets.
    """
    count = max(0, len(panel) - context - horizon + 1)
    starts = np.arange(context, context + count)
    # Of all rows that have as many before and after: views, not copies.
    begins, ends = panel.times[:count], panel.times[context + horizon - 1 :][:count]
    firsts, lasts = panel.first[context:][:count], panel.last[context:][:count]
    inside = part.holds(begins if part.whole else panel.times[context:][:count], ends)
    starts = starts[inside & (starts - context >= firsts) & (starts + horizon - 1 <= lasts)]
    if stride > 1 and len(starts):
        anew = np.concatenate([[True], (np.diff(starts) > 1) | np.diff(panel.first[starts]).astype(bool)])
        run = np.maximum.accumulate(np.where(anew, starts, 0))
        starts = starts[(starts - run) % stride == 0]
    measured = np.isfinite(panel.values[:, :targets]).any(axis=1)
    if measured.all():
        return starts
    total = np.concatenate([[0], np.cumsum(measured)])
    past = total[starts] - total[starts - context]
    future = total[starts + horizon] - total[starts]
    kept: Ints = starts[(past > 0) & (future > 0)]
    return kept


def check_windows(panel: Panel, part: Part, count: int, context: int, horizon: int) -> None:
    """Raise DataError if a part has no window."""
    if count:
        return
    inside = part.rows(panel)
    lengths = np.unique(panel.first[inside], return_counts=True)[1]
    steps = int(lengths.max()) if len(lengths) else 0
    verb, word = ("train", "training") if part.name == "train" else ("validate", "validation")
    need = f"{context} + {horizon} steps in it" if part.whole else f"{horizon} steps in it and {context} before them"
    raise DataError(
        f"there is no window to {verb} on",
        where=f"{len(panel.names)} series from {stamp(int(panel.times.min()))} to {stamp(int(panel.times.max()))}",
        why=f"a window of the {word} part has {need}, without a long gap; the longest segment has "
        f"{int((panel.last - panel.first).max()) + 1} steps, and at most {steps} of one lie in the {word} part",
        do=f"give a smaller task.context (now {context}) or task.horizon (now {horizon}), or more data",
    )

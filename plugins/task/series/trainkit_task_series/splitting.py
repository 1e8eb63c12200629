"""Splits by time, the same moments for all series, and the windows of each part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from trainkit.errors import DataError, UsageError

from .panel import Ints, Panel, stamp

EVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Part:
    """Hold the times [begin, end) in which the targets of a split lie."""

    name: str
    begin: int
    end: int


def parts_of(
    panel: Panel, fractions: tuple[float, float, float], cuts: Sequence[str], purge: int
) -> tuple[Part, Part, Part]:
    """Return training, validation and test.

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
    gap = purge * panel.grid.step
    return Part("train", begin, val - gap), Part("val", val, test - gap), Part("test", test, end)


def _nth(times: np.ndarray, share: float) -> int:
    # A share of 1 within rounding is the end: nothing is left for the next part.
    place = round(share * len(times))
    return int(times[place]) if place < len(times) else int(times[-1]) + 1


def _moment(text: str) -> int:
    try:
        return int(np.datetime64(text.removesuffix("Z"), "us").astype(np.int64))
    except ValueError:
        raise UsageError(f"task.cuts: {text!r} is no time", do="as 2026-01-31 or 2026-01-31T12:00") from None


def windows_of(panel: Panel, part: Part, context: int, horizon: int, stride: int, targets: int) -> Ints:
    """Return the first horizon row of each window whose targets lie in a part; its past may reach back before it.

    A window lies within a segment, and has a measured target in its past and in its horizon.

    Args:
        panel: the series.
        part: the times of the targets.
        context: steps of the past.
        horizon: steps that are forecast.
        stride: steps from one window of a segment to the next.
        targets: how many of the first values are targets.
    """
    rows = np.arange(len(panel))
    ends = rows + horizon - 1
    inside = (rows - context >= panel.first) & (ends <= panel.last) & (panel.times >= part.begin)
    starts = rows[inside]
    # Times within a segment are regular: the last target's is known without looking.
    starts = starts[panel.times[starts] + (horizon - 1) * panel.grid.step < part.end]
    if stride > 1 and len(starts):
        begins = np.concatenate([[True], (np.diff(starts) > 1) | np.diff(panel.first[starts]).astype(bool)])
        run = np.maximum.accumulate(np.where(begins, starts, 0))
        starts = starts[(starts - run) % stride == 0]
    measured = np.isfinite(panel.values[:, :targets]).any(axis=1)
    total = np.concatenate([[0], np.cumsum(measured)])
    past = total[starts] - total[starts - context]
    future = total[starts + horizon] - total[starts]
    kept: Ints = starts[(past > 0) & (future > 0)]
    return kept


def check_windows(panel: Panel, count: int, context: int, horizon: int) -> None:
    """Raise DataError if there is no window to train on."""
    if count:
        return
    lengths = panel.last - panel.first + 1
    raise DataError(
        "there is no window to train on",
        where=f"{len(panel.names)} series from {stamp(int(panel.times.min()))} to {stamp(int(panel.times.max()))}",
        why=f"a window needs {context} + {horizon} steps without a long gap, of which the last {horizon} lie in the "
        f"training part; the longest segment has {int(lengths.max())} steps",
        do=f"give a smaller task.context (now {context}) or task.horizon (now {horizon}), or more data",
    )

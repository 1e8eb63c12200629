"""Times of the steps of series: a regular grid, to which rows are brought."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from trainkit.contracts import Finding
from trainkit.errors import DataError
from trainkit.tables import listed

from .rows import Rows
from .times import Times

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
SECOND, DAY = 1_000_000, 86_400_000_000
NEAR = (0.67, 1.5)
NAMED_STEPS = ((DAY, "day"), (3_600 * SECOND, "hour"), (60 * SECOND, "minute"), (SECOND, "second"))


@dataclass(frozen=True)
class Grid:
    """Hold the times that rows are brought to: the phase of their series + n step, in microseconds.

    Args:
        step: of all series.
        phases: of each series.
    """

    step: int
    phases: Ints

    @classmethod
    def of(cls, rows: Rows, step: int) -> Grid:
        """Return the grid of rows: the phase of a series is that of most of its rows.

        Times that wander over all phases are brought to the round ones, of phase 0.
        """
        phases = np.zeros(len(rows.names), np.int64)
        remainders = rows.times % step
        order = np.argsort(rows.series, kind="stable")
        ends = np.searchsorted(rows.series[order], np.arange(len(rows.names) + 1))
        for number in range(len(rows.names)):
            mine = remainders[order[ends[number] : ends[number + 1]]]
            found, counts = np.unique(mine, return_counts=True)
            if len(mine) and 2 * counts.max() > len(mine):
                phases[number] = found[counts.argmax()]
        return cls(step, phases)

    def places(self, times: Times, series: Ints) -> Ints:
        """Return n of the time of the grid that is nearest."""
        places: Ints = np.floor_divide(times - self.phases[series] + self.step // 2, self.step)
        return places

    def times(self, places: Ints, series: Ints) -> Times:
        """Return the times of places."""
        times: Times = places * self.step + self.phases[series]
        return times

    def earlier(self, moment: int, steps: int) -> int:
        """Return the time that many steps before a moment, or after it for a negative number."""
        return moment - steps * self.step


def find_step(rows: Rows, step: int | None) -> tuple[int, list[Finding]]:
    """Return the step of rows that are in order: the commonest one, if none is given.

    Args:
        rows: in order.
        step: in microseconds; None to find it.

    Raises:
        DataError: no series has two times.
    """
    same = rows.series[1:] == rows.series[:-1]
    steps = np.diff(rows.times)[same]
    owners = rows.series[1:][same][steps > 0]
    steps = steps[steps > 0]
    if not len(steps):
        raise DataError("no series has two rows at different times", do="check task.time and task.series")
    findings = []
    sizes, counts = np.unique(steps, return_counts=True)
    found = int(sizes[counts.argmax()])
    if step is None:
        step = found
        medians = {int(owner): float(np.median(steps[owners == owner])) for owner in np.unique(owners)[:1000]}
        others = [rows.names[owner] for owner, size in medians.items() if not NEAR[0] < size / step < NEAR[1]]
        if others:
            text = f"another step than {duration(step)} in {len(others)} of {len(medians)} series: {listed(others)}"
            findings.append(Finding("other step", others[0], text, is_fault=False))
    return step, findings


def other_step(rows: Rows, step: int) -> list[Finding]:
    """Return what is notable about rows, in order, that are brought to a step that is not theirs."""
    steps = np.diff(rows.times)[rows.series[1:] == rows.series[:-1]]
    steps = steps[steps > 0]
    usual = float(np.median(steps)) if len(steps) else step
    if NEAR[0] < usual / step < NEAR[1]:
        return []
    text = f"a row every {duration(usual)}, and every {duration(step)} in training: brought to that"
    return [Finding("other step", rows.names[0], text, is_fault=False)]


def duration(microseconds: float) -> str:
    """Return a length of time for people."""
    for size, word in NAMED_STEPS:
        if microseconds >= size:
            count = microseconds / size
            return f"{count:.4g} {word}" + ("" if count == 1 else "s")
    return f"{microseconds:g} microseconds"


def stamp(microseconds: int) -> str:
    """Return a time for people and for files."""
    moment = np.datetime64(microseconds, "us")
    precise = np.datetime_as_string(moment, unit="s" if microseconds % SECOND == 0 else "us")
    return str(precise)

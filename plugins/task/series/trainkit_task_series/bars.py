"""Rows that are steps whatever their times, as trading days: no row is moved, and none is missing between two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .grid import DAY, Ints
from .rows import Rows
from .times import Times

MONDAY = 4  # 1 January 1970 was a Thursday.
WEEK = 7


@dataclass(frozen=True)
class Bars:
    """Hold the times of the rows of each series; place n is that of its row n.

    Args:
        step: the commonest distance of two rows, in microseconds.
        moments: of each series the times of its rows, ascending, each once.
    """

    step: int
    moments: tuple[Times, ...]

    @classmethod
    def of(cls, rows: Rows, step: int) -> Bars:
        """Return the bars of rows that are in order."""
        ends = np.searchsorted(rows.series, np.arange(len(rows.names) + 1))
        return cls(step, tuple(np.unique(rows.times[ends[i] : ends[i + 1]]) for i in range(len(rows.names))))

    def places(self, times: Times, series: Ints) -> Ints:
        """Return the number of each time in its series."""
        places = np.zeros(len(times), np.int64)
        for number in np.unique(series):
            mine = series == number
            places[mine] = np.searchsorted(self.moments[number], times[mine])
        return places

    def times(self, places: Ints, series: Ints) -> Times:
        """Return the times of places; before the first row and after the last one those that rows would have."""
        times = np.zeros(len(places), np.int64)
        for number in np.unique(series):
            mine = series == number
            times[mine] = self._times_of(self.moments[number], places[mine])
        return times

    def earlier(self, moment: int, steps: int) -> int:
        """Return the time that many rows before a moment, or after it for a negative number, by all series' rows."""
        if not steps:
            return moment
        known = np.unique(np.concatenate(self.moments))
        place = int(np.searchsorted(known, moment)) - steps
        return int(known[place]) if 0 <= place < len(known) else moment - steps * self.step

    def _times_of(self, known: Times, places: Ints) -> Times:
        ahead, behind = int(places.max()) - len(known) + 1, -int(places.min())
        later = self._onward(int(known[-1]), self.step, max(0, ahead), known)
        sooner = self._onward(int(known[0]), -self.step, max(0, behind), known)[::-1]
        everything: Times = np.concatenate([sooner, known, later])[places + len(sooner)]
        return everything

    def _onward(self, start: int, step: int, count: int, known: Times) -> Times:
        """Return the next times in steps, on those days of the week that have rows.

        Args:
            start: the time before the first.
            step: from one to the next; negative for the past.
            count: how many.
            known: the rows.
        """
        if not count:
            return np.empty(0, np.int64)
        open_days = np.isin(np.arange(WEEK), weekday(known)) if abs(step) <= DAY else np.ones(WEEK, bool)
        # Of seven days in a row at least one has rows.
        candidates = start + step * np.arange(1, count * WEEK * max(1, DAY // abs(step)) + 1)
        onward: Times = candidates[open_days[weekday(candidates)]][:count]
        return onward


def weekday(times: Times) -> Ints:
    """Return the day of the week of times, 0 for Monday."""
    days: Ints = (np.floor_divide(times, DAY) + MONDAY - 1) % WEEK
    return days

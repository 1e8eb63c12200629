"""Texts of a horizontal axis of steps: their times, at the beginnings of hours, days, weeks, months or years."""

from __future__ import annotations

import numpy as np

from .grid import SECOND, stamp

MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND
# 1970 began on a Thursday; weeks begin on Mondays.
MONDAY = 4 * DAY
UNITS = (
    *(n * SECOND for n in (1, 5, 15, 30)),
    *(n * MINUTE for n in (1, 5, 15, 30)),
    *(n * HOUR for n in (1, 3, 6, 12)),
    *(n * DAY for n in (1, 2, 7, 14)),
)
MONTHS = (1, 3, 6, 12, 24, 60, 120)
MOST = 7


def time_labels(times: np.ndarray, first: int) -> list[tuple[float, str]]:
    """Return (place, text) pairs for steps at these times: at most about 7, where a unit of time begins.

    Steps need not be regular, as trading days are not: a label stands at the first step of its unit.

    Args:
        times: [L] microseconds since 1970, ascending.
        first: place of the first step.
    """
    begins, unit = _beginnings(times)
    places = np.flatnonzero(begins[1:] != begins[:-1]) + 1
    return [(float(first + place), _text(times[place], times[place - 1], unit)) for place in places.tolist()]


def span_of(times: np.ndarray) -> str:
    """Return the first and the last time in words."""
    return f"{_minutes(times[0])} to {_minutes(times[-1])}"


def _beginnings(times: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the number of the unit that each time lies in, of the finest unit of which few begin, and its length."""
    for unit in UNITS:
        numbers = np.floor_divide(times - MONDAY if unit >= 7 * DAY else times, unit)
        if _few(numbers):
            return numbers, unit
    months = times.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)
    for count in MONTHS[:-1]:
        if _few(months // count):
            return months // count, count * 30 * DAY
    return months // MONTHS[-1], MONTHS[-1] * 30 * DAY


def _few(numbers: np.ndarray) -> bool:
    return int((numbers[1:] != numbers[:-1]).sum()) <= MOST


def _text(time: int, before: int, unit: int) -> str:
    """Return the text of a time: no finer than its unit, with the date where a day begins."""
    date, clock = stamp(int(time)).split("T")
    if unit >= 360 * DAY:
        return date[:4]
    if unit >= 30 * DAY:
        return date[:7]
    if unit >= DAY or time // DAY != before // DAY:
        return date[5:]
    return clock[: 8 if unit < MINUTE else 5]


def _minutes(time: int) -> str:
    """Return a time without what is 0 in it."""
    text = stamp(int(time)).replace("T", " ")
    return text.removesuffix(":00").removesuffix(" 00:00")

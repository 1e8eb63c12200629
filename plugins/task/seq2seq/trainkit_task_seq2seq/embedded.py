"""The embedded sample: dates as people write them, and the same dates as ISO 8601."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

FIRST = dt.date(2019, 1, 3)
COUNT, STEP = 400, 17
FORMS = (
    "{day} {month} {year}",
    "{month} {day}, {year}",
    "the {nth} of {month} {year}",
    "{weekday}, {day} {month} {year}",
)
PROMPTS = ("21 November 2026", "March 3, 2024", "the 2nd of May 2021")


def dates() -> Sequence[Mapping[str, Any]]:
    """Return records of dates in words with the same dates in digits, always the same ones."""
    found = []
    for number in range(COUNT):
        date = FIRST + dt.timedelta(days=STEP * number)
        words = {
            "day": date.day,
            "nth": f"{date.day}{_ending(date.day)}",
            "month": MONTHS[date.month - 1],
            "weekday": WEEKDAYS[date.weekday()],
            "year": date.year,
        }
        form = FORMS[number % len(FORMS)].format(**words)
        found.append({"id": f"date-{number + 1}", "input": form, "target": date.isoformat()})
    return found


# Not those of the calendar module, which follow the language of the system.
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _ending(day: int) -> str:
    return "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")

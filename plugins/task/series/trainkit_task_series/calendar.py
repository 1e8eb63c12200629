"""Calendar features: what the clock says of a time, known as far ahead as one likes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from .grid import DAY
from .times import Times

Calendar = Literal["hour", "weekday", "month", "weekend"]
CALENDAR: tuple[Calendar, ...] = get_args(Calendar)
WEEK = 7


def calendar_features(times: Times, chosen: Sequence[Calendar]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return features [N, K] of times: hour, weekday and month as sine and cosine, so that midnight is near 23:00.

    Args:
        times: microseconds since 1970; of any shape, which the features end with K after.
        chosen: hour (two features), weekday (two), month (two), weekend (one).
    """
    days = np.floor_divide(times, DAY)
    columns: list[np.ndarray] = []
    for name in chosen:
        if name == "hour":
            columns += _circle((times - days * DAY) / DAY)
        elif name == "month":
            months = times.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64) % 12
            columns += _circle(months / 12)
        else:
            # 1970 began on a Thursday; 0 is Monday.
            weekday = (days + 3) % WEEK
            columns += _circle(weekday / WEEK) if name == "weekday" else [np.where(weekday >= 5, 1.0, 0.0)]
    if not columns:
        return np.zeros((*times.shape, 0), np.float32)
    return np.stack(columns, axis=-1).astype(np.float32, copy=False)


def _circle(turn: np.ndarray) -> list[np.ndarray]:
    angle = (2 * np.pi * turn).astype(np.float32)
    return [np.sin(angle), np.cos(angle)]


def usual_calendar(step: int) -> tuple[Calendar, ...]:
    """Return the features that suit a step: the hour where a day has several steps, the month where it has not."""
    if step < DAY:
        return ("hour", "weekday")
    return ("weekday", "month") if step < WEEK * DAY else ("month",)

"""Plots of windows: past, truth, forecast and band of each target."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from trainkit.contracts import Panel as Shown
from trainkit.reporting.axes import Points
from trainkit.reporting.chart import chart
from trainkit.reporting.plot import Mark, line_plot
from trainkit.reporting.reportpage import STYLE, text

from .grid import NAMED_STEPS, stamp

Picture = np.ndarray[Any, Any]
MOST_TARGETS = 8
# Of the past so many horizons are shown: more would leave the forecast too narrow to see.
HORIZONS_SHOWN = 4


@dataclass(frozen=True)
class Course:
    """Hold what is plotted of one window, all in original units, NaN where nothing was measured.

    Args:
        name: of the window.
        targets: their names.
        times: [C + H] microseconds since 1970.
        past: [C, T].
        truth: [H, T].
        forecast: [H, T], or None where there is none.
        quantiles: [H, T, Q], or None.
        levels: [Q].
    """

    name: str
    targets: Sequence[str]
    times: np.ndarray
    past: np.ndarray
    truth: np.ndarray
    forecast: np.ndarray | None = None
    quantiles: np.ndarray | None = None
    levels: Sequence[float] = ()

    @property
    def start(self) -> int:
        """Return the first time of the horizon."""
        return int(self.times[len(self.past)])


@dataclass(frozen=True)
class _Curves:
    series: Mapping[str, Points]
    faint: Collection[str]
    x_label: str
    mark: Mark


def curves_of(course: Course, target: int) -> _Curves:
    """Return the curves of a target over time."""
    length = float(course.times[-1] - course.times[len(course.past) - 1])
    size, word = next(((size, word) for size, word in NAMED_STEPS if size <= length), NAMED_STEPS[-1])
    shown = min(len(course.past), HORIZONS_SHOWN * len(course.truth))
    since = ((course.times - course.start) / size).tolist()
    # Curves of the horizon begin where the past ends, so that the eye follows them.
    before, after = since[len(course.past) - shown : len(course.past)], since[len(course.past) - 1 :]
    past = course.past[-shown:, target]
    series: dict[str, Points] = {"past": _points(before, past)}
    if np.isfinite(course.truth[:, target]).any():
        series["truth"] = _points(after, [past[-1], *course.truth[:, target]])
    faint: list[str] = []
    if course.forecast is not None:
        series["forecast"] = _points(after, [past[-1], *course.forecast[:, target]])
    if course.quantiles is not None and len(course.levels) > 1:
        for place in (0, len(course.levels) - 1):
            name = f"quantile {course.levels[place]:g}"
            series[name] = _points(after, [past[-1], *course.quantiles[:, target, place]])
            faint.append(name)
    label = f"{word}s from {stamp(course.start).replace('T', ' ')}"
    return _Curves(series, faint, label, Mark(0.0, "forecast" if course.forecast is not None else "horizon"))


def _points(xs: Sequence[float], ys: Iterable[float]) -> Points:
    return list(zip(xs, [float(y) for y in ys], strict=True))


def plot_of(course: Course, target: int) -> Picture | None:
    """Return the plot of a target, or None where there is nothing to draw."""
    curves = curves_of(course, target)
    if not any(math.isfinite(y) for points in curves.series.values() for _, y in points):
        return None
    return line_plot(
        curves.series,
        curves.x_label,
        course.targets[target],
        title=course.name,
        faint=curves.faint,
        marks=[curves.mark],
    )


def panels_of(course: Course) -> list[Shown]:
    """Return a plot of each of the first targets; more are in the files."""
    panels = []
    for place, name in enumerate(course.targets[:MOST_TARGETS]):
        if (picture := plot_of(course, place)) is not None:
            panels.append(Shown(name, picture))
    return panels


def picture_of(course: Course) -> Picture:
    """Return the plots of the first targets, one below the other."""
    return stacked([panel.content for panel in panels_of(course) if not isinstance(panel.content, str)])


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Return pictures of one width, one below the other."""
    return np.concatenate(pictures) if pictures else np.full((1, 1, 3), 255, np.uint8)


def page_of(course: Course) -> str:
    """Return a page with a chart of every target, in one file without scripts or links to elsewhere."""
    charts = []
    for place, name in enumerate(course.targets):
        curves = curves_of(course, place)
        body = chart(curves.series, curves.x_label, may_be_log=False)
        charts.append(f"<section><h2>{text(name)}</h2>{body or '<p>nothing was measured</p>'}</section>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{text(course.name)}</title><style>{STYLE}</style></head><body><main>"
        f"<header><h1>{text(course.name)}</h1></header>{''.join(charts)}</main></body></html>\n"
    )

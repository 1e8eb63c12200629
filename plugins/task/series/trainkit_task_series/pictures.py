"""Plots of windows: past, truth, forecast and band of each target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from trainkit.contracts import Panel as Shown
from trainkit.reporting.axes import Band, Labels, Points
from trainkit.reporting.plot import Mark, line_plot

from .timeaxis import span_of, time_labels

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
class Curves:
    """Hold what is drawn of a target: curves and bands by name, over steps from the first of the horizon.

    Args:
        series: past, truth, forecast.
        bands: between quantiles, the widest first.
        x_label: the times that are shown.
        x_labels: texts on the horizontal axis.
        mark: where the horizon begins.
    """

    series: Mapping[str, Points]
    bands: Mapping[str, Band]
    x_label: str
    x_labels: Labels
    mark: Mark

    @property
    def has_points(self) -> bool:
        """Return whether there is anything to draw."""
        return any(math.isfinite(y) for points in self.series.values() for _, y in points)


def curves_of(course: Course, target: int) -> Curves:
    """Return the curves of a target over time."""
    horizon, shown = len(course.truth), min(len(course.past), HORIZONS_SHOWN * len(course.truth))
    past, truth = course.past[-shown:, target], course.truth[:, target]
    # What lies ahead begins where the past ends, so that the eye follows it.
    ahead = range(-1, horizon)
    series = {"past": _points(range(-shown, 0), past)}
    bands: dict[str, Band] = {}
    if course.forecast is not None:
        series["forecast"] = _points(ahead, [past[-1], *course.forecast[:, target]])
    if course.quantiles is not None:
        for low, high in bands_of(len(course.levels)):
            bounds = [_points(ahead, [past[-1], *course.quantiles[:, target, place]]) for place in (low, high)]
            bands[f"{course.levels[low]:g} to {course.levels[high]:g}"] = Band("forecast", *bounds)
    # Last, so that the forecast has one colour whether the truth is known or not.
    if np.isfinite(truth).any():
        series["truth"] = _points(ahead, [past[-1], *truth])
    times = course.times[len(course.past) - shown :]
    mark = Mark(0.0, "forecast" if course.forecast is not None else "horizon")
    return Curves(series, bands, span_of(times), time_labels(times, -shown), mark)


def bands_of(levels: int) -> list[tuple[int, int]]:
    """Return the places of the outermost levels and, if there are more, of those next to the median."""
    middle = (levels // 2 - 1, levels - levels // 2)
    return list(dict.fromkeys([(0, levels - 1), middle])) if levels > 1 else []


def _points(xs: Iterable[int], ys: Iterable[float]) -> Points:
    return [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]


def plot_of(course: Course, target: int) -> Picture | None:
    """Return the plot of a target, or None where there is nothing to draw."""
    curves = curves_of(course, target)
    if not curves.has_points:
        return None
    return line_plot(
        curves.series,
        curves.x_label,
        course.targets[target],
        marks=[curves.mark],
        bands=curves.bands,
        x_labels=curves.x_labels,
    )


def panels_of(course: Course) -> list[Shown]:
    """Return a plot of each of the first targets; more are in the files."""
    panels = []
    for place, name in enumerate(course.targets[:MOST_TARGETS]):
        if (picture := plot_of(course, place)) is not None:
            panels.append(Shown(name, picture))
    return panels


def is_drawn(course: Course) -> bool:
    """Return whether one of the first targets has anything to draw."""
    return any(curves_of(course, place).has_points for place in range(len(course.targets[:MOST_TARGETS])))


def picture_of(course: Course) -> Picture:
    """Return the plots of the first targets, one below the other."""
    return stacked([panel.content for panel in panels_of(course) if not isinstance(panel.content, str)])


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Return pictures of one width, one below the other."""
    return np.concatenate(pictures) if pictures else np.full((1, 1, 3), 255, np.uint8)

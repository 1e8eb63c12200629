"""Which curves of a run stand in one chart, and which charts come first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainkit.resulttable import LOSS, Place, main_figure, place_of

from .axes import Points

# More figures of a metric than this in one chart cannot be told apart, and hardly have one scale.
MOST_FIGURES, MOST_PARTS = 6, 12
SPLITS = ("train/", "val/")
# Further tags, each with a chart of its own.
ALONE = ("curriculum/", "system/")
LATE = {"learning_rate": 3, "grad_norm": 4, "gradient_noise": 4}


def chart_series(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, Points]]]:
    """Return the charts of a run: the loss first, each metric with its figures, its main figure by part, then the rest.

    Of a metric with more than 6 figures the main one is drawn alone, of more than 12 parts the first ones.

    Args:
        rows: of metrics.jsonl.
    """
    curves = _curves(rows)
    names = {tag.partition("/")[2] for tag in curves if tag.startswith(SPLITS)}
    placed = {name: place_of(name) for name in names}
    charts: dict[tuple[int, str], dict[str, Points]] = {}
    for tag in sorted(curves, key=lambda tag: (not tag.startswith("train/"), tag)):
        name = tag.partition("/")[2]
        key = _chart_of(placed[name], placed) if tag.startswith(SPLITS) else (5, tag)
        if key is not None:
            charts.setdefault(key, {})[tag] = curves[tag]
    return [
        (title.replace("_", " "), dict(list(chart.items())[:MOST_PARTS]))
        for (_, title), chart in sorted(charts.items())
    ]


def _curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        step = row.get("step")
        if not isinstance(step, int | float) or not math.isfinite(step):
            continue
        for tag, value in row.items():
            if tag.startswith((*SPLITS, *ALONE)) and isinstance(value, int | float):
                curves.setdefault(tag, []).append((float(step), float(value)))
    return curves


def _chart_of(place: Place, placed: Mapping[str, Place]) -> tuple[int, str] | None:
    """Return rank and title of the chart that a curve belongs to, or None for one that is not drawn."""
    metric = place.metric
    if metric == LOSS:
        return (2, "parts of the loss") if place.part else (0, LOSS)
    if metric in LATE:
        return LATE[metric], metric
    if place.part:
        return (2, f"{metric} by {place.group}") if place.figure == main_figure(metric, placed.values()) else None
    figures = sum(other.metric == metric and bool(other.figure) and not other.part for other in placed.values())
    return None if place.figure and figures > MOST_FIGURES else (1, metric)

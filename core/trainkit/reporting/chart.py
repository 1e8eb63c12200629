"""Line charts as SVG text: no library, no script, colours by CSS classes so that a page's dark mode reaches them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape as escape_markup

from trainkit.errors import printable

from .axes import Axis, Points, short, stretches, thinned

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 34
LOG_RATIO = 100.0
COLOURS = 6


def chart(series: Mapping[str, Points], x_label: str = "step", *, may_be_log: bool = True) -> str:
    """Return a line chart as an SVG element, or '' where no series has a finite point.

    Args:
        series: name -> (x, y) pairs in the order of x. Gaps are drawn where y is not finite.
        x_label: the name of the horizontal axis.
        may_be_log: take a logarithmic scale where values span more than two decades.
    """
    finite = {name: [p for p in points if math.isfinite(p[1])] for name, points in series.items()}
    values = [y for points in finite.values() for _, y in points]
    if not values:
        return ""
    xs = [x for points in finite.values() for x, _ in points]
    log = may_be_log and min(values) > 0 and max(values) / min(values) > LOG_RATIO
    x_axis, y_axis = (
        Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT),
        Axis(min(values), max(values), HEIGHT - BOTTOM, TOP, log),
    )
    parts = [_grid(x_axis, y_axis), _frame_labels(x_label, log)]
    parts += [
        _line(thinned(points), x_axis, y_axis, name, _look(number))
        for number, (name, points) in enumerate(series.items())
    ]
    names = escape(", ".join(finite))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{names} over {escape(x_label)}">'
        + "".join(parts)
        + "</svg>"
        + _legend(list(series))
    )


def _grid(x_axis: Axis, y_axis: Axis) -> str:
    parts = []
    for value in y_axis.ticks():
        y = y_axis(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{short(value)}</text>')
    below = HEIGHT - BOTTOM + 16
    parts += [f'<text x="{x_axis(x)}" y="{below}" text-anchor="middle">{short(x)}</text>' for x in x_axis.ticks()]
    base = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    return "".join(parts)


def _frame_labels(x_label: str, log: bool) -> str:
    note = f"{x_label}, logarithmic scale" if log else x_label
    return f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 2}" text-anchor="end">{escape(note)}</text>'


def _look(number: int) -> str:
    """Return the CSS classes of a series: a colour, and dashes where the colours begin anew."""
    return f"c{number % COLOURS}" + (" dashed" if number >= COLOURS else "")


def _line(points: Points, x_axis: Axis, y_axis: Axis, name: str, look: str) -> str:
    parts = []
    for stretch in stretches(points):
        pixels = [f"{x_axis(x)},{y_axis(y)}" for x, y in stretch]
        if len(pixels) == 1:
            x_text, y_text = pixels[0].split(",")
            parts.append(f'<circle class="dot {look}" cx="{x_text}" cy="{y_text}" r="2.5"/>')
        else:
            parts.append(
                f'<polyline class="line {look}" points="{" ".join(pixels)}"><title>{escape(name)}</title></polyline>'
            )
    return "".join(parts)


def _legend(names: list[str]) -> str:
    items = "".join(f'<li><i class="key {_look(number)}"></i>{escape(name)}</li>' for number, name in enumerate(names))
    return f'<ul class="legend">{items}</ul>'


def escape(text: str) -> str:
    """Return data as the text of an element."""
    return escape_markup(printable(text))

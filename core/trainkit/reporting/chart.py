"""Line charts as SVG text: no library, no script, colours by CSS classes so that a page's dark mode reaches them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape as escape_markup

from trainkit.errors import printable

from .axes import Axis, Band, Labels, Points, short, stretches, thinned

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 34
LOG_RATIO = 100.0
COLOURS = 6


def chart(
    series: Mapping[str, Points],
    x_label: str = "step",
    *,
    may_be_log: bool = True,
    bands: Mapping[str, Band] | None = None,
    x_labels: Labels = (),
) -> str:
    """Return a line chart as an SVG element, or '' where no series has a finite point.

    Args:
        series: name -> (x, y) pairs in the order of x. Gaps are drawn where y is not finite.
        x_label: the name of the horizontal axis.
        may_be_log: take a logarithmic scale where values span more than two decades.
        bands: what is filled behind all series, by name; the widest first.
        x_labels: (x, text) pairs in place of numbers on the horizontal axis, as dates.
    """
    filled = bands or {}
    edges = [point for band in filled.values() for side in (band.low, band.high) for point in side]
    finite = {name: [p for p in points if math.isfinite(p[1])] for name, points in series.items()}
    drawn = [point for points in finite.values() for point in points]
    if not drawn:
        return ""
    drawn += [point for point in edges if math.isfinite(point[1])]
    xs, values = [x for x, _ in drawn], [y for _, y in drawn]
    log = may_be_log and min(values) > 0 and max(values) / min(values) > LOG_RATIO
    x_axis, y_axis = (
        Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT, labels=x_labels),
        Axis(min(values), max(values), HEIGHT - BOTTOM, TOP, log),
    )
    looks = {name: _look(number) for number, name in enumerate(series)}
    looks |= {name: f"band {looks[band.of]}" for name, band in filled.items()}
    parts = [_band(band, x_axis, y_axis, name, looks[name]) for name, band in filled.items()]
    parts += [_grid(x_axis, y_axis), _frame_labels(x_label, log)]
    parts += [_line(thinned(points), x_axis, y_axis, name, looks[name]) for name, points in series.items()]
    names = escape(", ".join(finite))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{names} over {escape(x_label)}">'
        + "".join(parts)
        + "</svg>"
        + _legend(looks)
    )


def _grid(x_axis: Axis, y_axis: Axis) -> str:
    parts = []
    for value in y_axis.ticks():
        y = y_axis(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{short(value)}</text>')
    below = HEIGHT - BOTTOM + 16
    parts += [
        f'<text x="{x_axis(x)}" y="{below}" text-anchor="middle">{escape(x_axis.text(x))}</text>'
        for x in x_axis.ticks()
    ]
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


def _band(band: Band, x_axis: Axis, y_axis: Axis, name: str, look: str) -> str:
    parts = []
    for corners in band.outlines():
        pixels = " ".join(f"{x_axis(x)},{y_axis(y)}" for x, y in corners)
        parts.append(f'<polygon class="{look}" points="{pixels}"><title>{escape(name)}</title></polygon>')
    return "".join(parts)


def _legend(looks: Mapping[str, str]) -> str:
    items = "".join(f'<li><i class="key {look}"></i>{escape(name)}</li>' for name, look in looks.items())
    return f'<ul class="legend">{items}</ul>'


def escape(text: str) -> str:
    """Return data as the text of an element."""
    return escape_markup(printable(text))

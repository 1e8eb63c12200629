"""Line charts as SVG text: no library, no script, colours by CSS classes so that a page's dark mode reaches them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape as escape_markup

from trainkit.errors import printable

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 34
MAX_POINTS = 400
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
        _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT),
        _Axis(min(values), max(values), HEIGHT - BOTTOM, TOP, log),
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


def thinned(points: Points, limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """Return at most about `limit` points that keep the extremes of the curve: a spike stays a spike."""
    if len(points) <= limit:
        return list(points)
    bin_size = math.ceil(len(points) / (limit // 2))
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), bin_size):
        bunch = points[start : start + bin_size]
        order = sorted(range(len(bunch)), key=lambda i: (not math.isfinite(bunch[i][1]), bunch[i][1]))
        known = [i for i in order if math.isfinite(bunch[i][1])]
        chosen = {known[0], known[-1]} if known else {0}
        if len(known) < len(bunch):
            chosen.add(next(i for i in range(len(bunch)) if not math.isfinite(bunch[i][1])))
        kept += [bunch[i] for i in sorted(chosen)]
    return kept


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers between two values, about `count` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


class _Axis:
    """Map values to pixels."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False) -> None:
        self.log, self.start, self.end = log, start, end
        self.low, self.high = self._scale(low), self._scale(high)
        if self.low == self.high:
            margin = abs(self.low) * 0.05 or 0.5
            self.low, self.high = self.low - margin, self.high + margin

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def __call__(self, value: float) -> float:
        share = (self._scale(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self) -> list[float]:
        if not self.log:
            return ticks(self.low, self.high)
        return [10.0**n for n in range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)]


def _grid(x_axis: _Axis, y_axis: _Axis) -> str:
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


def _line(points: Points, x_axis: _Axis, y_axis: _Axis, name: str, look: str) -> str:
    runs: list[list[str]] = [[]]
    for x, y in points:
        if math.isfinite(y):
            runs[-1].append(f"{x_axis(x)},{y_axis(y)}")
        elif runs[-1]:
            runs.append([])
    parts = []
    for run in runs:
        if len(run) == 1:
            x_text, y_text = run[0].split(",")
            parts.append(f'<circle class="dot {look}" cx="{x_text}" cy="{y_text}" r="2.5"/>')
        elif run:
            parts.append(
                f'<polyline class="line {look}" points="{" ".join(run)}"><title>{escape(name)}</title></polyline>'
            )
    return "".join(parts)


def _legend(names: list[str]) -> str:
    items = "".join(f'<li><i class="key {_look(number)}"></i>{escape(name)}</li>' for number, name in enumerate(names))
    return f'<ul class="legend">{items}</ul>'


def short(value: float) -> str:
    """Return a number in few characters: 0.25, 1200, 3e-05, 12k."""
    if not math.isfinite(value):
        return str(value)
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e")
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def escape(text: str) -> str:
    """Return data as the text of an element."""
    return escape_markup(printable(text))

"""Line plots as pictures, for files and pages that show no SVG: Pillow draws them, nothing else is needed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .axes import Axis, Band, Labels, Points, stretches, thinned
from .contactsheet import INK, PAPER, SOFT, Picture, clipped, font
from .plotfield import SLENDER, THICK, THIN, Colour, Field, Look, Mark

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw as Pen

__all__ = ["Band", "Mark", "line_plot"]

WIDTH, HEIGHT = 1280, 760
LEFT, RIGHT, BOTTOM = 112, 36, 92
EDGE, LINE, TITLE, LABEL, NUMBER = 28, 36, 32, 26, 24
FEW_SERIES = 4
COLOURS = (
    (31, 87, 196),
    (217, 95, 2),
    (22, 138, 94),
    (192, 44, 106),
    (112, 80, 190),
    (13, 148, 172),
    (148, 112, 12),
    (93, 102, 121),
)


def line_plot(
    series: Mapping[str, Points],
    x_label: str,
    y_label: str,
    *,
    title: str = "",
    log_x: bool = False,
    log_y: bool = False,
    y_range: tuple[float, float] | None = None,
    faint: Collection[str] = (),
    marks: Sequence[Mark] = (),
    bands: Mapping[str, Band] | None = None,
    x_labels: Labels = (),
) -> Picture:
    """Return a line plot as a picture [H, W, 3] of bytes.

    Gaps are drawn where a value is not finite, or has no place on a logarithmic axis.

    Args:
        series: name -> (x, y) pairs in the order of x; the ninth and later ones are dashed.
        x_label: what the horizontal axis shows, with its unit.
        y_label: what the vertical axis shows, with its unit.
        title: stands above all.
        log_x: take a logarithmic horizontal axis.
        log_y: take a logarithmic vertical axis.
        y_range: the values at the vertical axis's ends; curves are cut there. Those of the series if not given.
        faint: names of series that are drawn thin and pale, behind the others.
        marks: places on the horizontal axis to point out.
        bands: what is filled behind all series, by name; the widest first.
        x_labels: (x, text) pairs in place of numbers on the horizontal axis, as dates.

    Raises:
        ValueError: no series has a point that can be drawn.
    """
    from PIL import Image, ImageDraw

    drawable = {name: thinned(_drawable(points, log_x, log_y), 2 * WIDTH) for name, points in series.items()}
    filled = bands or {}
    edges = {(name, side): points for name, band in filled.items() for side, points in enumerate((band.low, band.high))}
    xs, ys = _finite_values([*drawable.values(), *edges.values()])
    if not xs:
        raise ValueError(f"nothing to plot: no point of {', '.join(series) or 'any series'} is finite")
    xs += [mark.x for mark in marks]
    low, high = y_range or (min(ys), max(ys))
    canvas = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = ImageDraw.Draw(canvas)
    legend = _legend(list(drawable), faint)
    legend |= _band_legend(filled, legend)
    top = _write_head(pen, title, legend, y_label)
    x_axis = Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT, log_x, 0.015, x_labels)
    y_axis = Axis(low, high, HEIGHT - BOTTOM, top, log_y, 0.0 if y_range else 0.04)
    _write_numbers(pen, x_axis, y_axis, x_label)
    field = Field(canvas, x_axis, y_axis)
    for name, band in filled.items():
        field.band(band, legend[name].colour)
    field.grid()
    for name in sorted(drawable, key=lambda name: name not in faint):
        field.curve(drawable[name], legend[name])
    field.marks(marks)
    field.finish()
    _write_marks(pen, marks, x_axis, top)
    return np.asarray(canvas)


def _drawable(points: Points, log_x: bool, log_y: bool) -> list[tuple[float, float]]:
    """Return points with NaN in place of what a logarithmic axis has no place for."""
    return [(_placed(float(x), log_x), _placed(float(y), log_y)) for x, y in points]


def _placed(value: float, log: bool) -> float:
    return math.nan if log and value <= 0 else value


def _finite_values(series: Sequence[Points]) -> tuple[list[float], list[float]]:
    finite = [point for points in series for stretch in stretches(points) for point in stretch]
    return [x for x, _ in finite], [y for _, y in finite]


def _legend(names: Sequence[str], faint: Collection[str]) -> dict[str, Look]:
    looks, strong = {}, 0
    width = THICK if len(names) <= FEW_SERIES else SLENDER
    for name in names:
        colour = COLOURS[strong % len(COLOURS)]
        if name in faint:
            looks[name] = Look(_paler(colour), THIN)
        else:
            looks[name] = Look(colour, width, strong >= len(COLOURS))
            strong += 1
    return looks


def _band_legend(bands: Mapping[str, Band], legend: Mapping[str, Look]) -> dict[str, Look]:
    """Return how bands are drawn: in the colour of their series, the later ones stronger."""
    last = len(bands)
    return {
        name: Look(_paler(legend[band.of].colour, 12 + 16 * (place + 1) // last), filled=True)
        for place, (name, band) in enumerate(bands.items())
    }


def _paler(colour: Colour, share: int = 40) -> Colour:
    """Return a colour of which so many parts of 100 are left, the rest paper."""
    red, green, blue = (
        (share * part + (100 - share) * white) // 100 for part, white in zip(colour, PAPER, strict=True)
    )
    return red, green, blue


def _write_head(pen: Pen, title: str, legend: Mapping[str, Look], y_label: str) -> int:
    """Write title, legend and the vertical axis's name; return the pixel where the plot's field begins."""
    top = EDGE
    if title:
        pen.text((EDGE, top), clipped(title, WIDTH - EDGE - RIGHT, TITLE), fill=INK, font=font(TITLE))
        top += LINE + 12
    left = EDGE
    if len(legend) > 1:
        for name, look in legend.items():
            text = clipped(name, WIDTH - EDGE - RIGHT - 54, LABEL)
            wide = 54 + round(font(LABEL).getlength(text))
            if left > EDGE and left + wide > WIDTH - RIGHT:
                left, top = EDGE, top + LINE
            _key(pen, (left, top + LINE // 2 - 2), look)
            pen.text((left + 54, top), text, fill=INK, font=font(LABEL))
            left += wide + 32
        top += LINE + 10
    pen.text((EDGE, top), clipped(y_label, WIDTH - EDGE - RIGHT, LABEL), fill=SOFT, font=font(LABEL))
    return top + LINE + 10


def _key(pen: Pen, at: tuple[int, int], look: Look) -> None:
    x, y = at
    if look.filled:
        pen.rectangle((x, y - 9, x + 42, y + 9), fill=look.colour)
        return
    for start, end in [(0, 18), (26, 42)] if look.dashed else [(0, 42)]:
        pen.line((x + start, y, x + end, y), fill=look.colour, width=look.width + 1)


def _write_numbers(pen: Pen, x_axis: Axis, y_axis: Axis, x_label: str) -> None:
    base = HEIGHT - BOTTOM
    free_from = 0.0
    for value in x_axis.ticks():
        wide = _number_width(value, x_axis)
        left = x_axis(value) - wide / 2
        # A number that would touch the one before is left out: its line in the grid stays.
        if left >= free_from and left + wide <= WIDTH:
            _write_number(pen, (left, base + 12), value, x_axis)
            free_from = left + wide + 12
    for value in y_axis.ticks():
        left = LEFT - 14 - _number_width(value, y_axis)
        _write_number(pen, (left, y_axis(value) - NUMBER // 2 - 3), value, y_axis)
    middle = (LEFT + WIDTH - RIGHT) / 2
    pen.text((middle, HEIGHT - 42), clipped(x_label, WIDTH - LEFT, LABEL), SOFT, font(LABEL), anchor="ma")


def _power(value: float, axis: Axis) -> int | None:
    """Return n where a logarithmic axis writes a value as 10 to the n."""
    power = round(math.log10(value)) if axis.log else 0
    return power if axis.log and math.isclose(value, 10.0**power) and not -1 <= power <= 2 else None


def _number_width(value: float, axis: Axis) -> float:
    power = _power(value, axis)
    if power is None:
        return float(font(NUMBER).getlength(axis.text(value)))
    return float(font(NUMBER).getlength("10") + 2 + font(NUMBER * 2 // 3).getlength(str(power)))


def _write_number(pen: Pen, at: tuple[float, float], value: float, axis: Axis) -> None:
    power = _power(value, axis)
    if power is None:
        pen.text(at, axis.text(value), fill=INK, font=font(NUMBER))
        return
    pen.text(at, "10", fill=INK, font=font(NUMBER))
    raised = (at[0] + 2 + font(NUMBER).getlength("10"), at[1] - 4)
    pen.text(raised, str(power), fill=INK, font=font(NUMBER * 2 // 3))


def _write_marks(pen: Pen, marks: Sequence[Mark], x_axis: Axis, top: int) -> None:
    """Write the texts of marks beside their lines, each in the first row where it meets no other."""
    rows: list[float] = []
    for mark in sorted(marks, key=lambda mark: mark.x):
        text = clipped(mark.text, WIDTH // 2, NUMBER)
        wide = font(NUMBER).getlength(text)
        x = x_axis(mark.x)
        left = x + 12 if x + 12 + wide <= WIDTH - RIGHT else x - 12 - wide
        row = next((n for n, end in enumerate(rows) if left > end + 16), len(rows))
        rows[row:] = [left + wide, *rows[row + 1 :]]
        at = (left, top + 8 + row * (NUMBER + 10))
        pen.rectangle((at[0] - 4, at[1] - 2, at[0] + wide + 4, at[1] + NUMBER + 6), fill=PAPER)
        pen.text(at, text, fill=INK if mark.strong else SOFT, font=font(NUMBER))

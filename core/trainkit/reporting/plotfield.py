"""The field of a line plot: grid, curves and marks between two axes, drawn by Pillow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from .axes import Axis, Band, Points, stretches
from .contactsheet import INK, PAPER, SOFT

if TYPE_CHECKING:
    from PIL.Image import Image

Pixel = tuple[float, float]
Colour = tuple[int, int, int]

# Lines are drawn larger and shrunk, so that they are smooth; letters are smooth as they are.
FINER = 2
THICK, SLENDER, THIN, DOT = 4, 3, 2, 8
GRID, PALE_GRID, FRAME = (222, 226, 234), (238, 240, 245), (120, 128, 146)
DASH, DOTS = (18, 10), (4, 8)


@dataclass(frozen=True)
class Mark:
    """Point out a place on the horizontal axis by a dotted line with a text.

    Args:
        x: where it is.
        text: what stands beside the line.
        y: put a dot at this height, too.
        strong: draw the line full and the text dark: this is the one to look at.
    """

    x: float
    text: str
    y: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class Look:
    """Hold how a series is drawn: its colour, the width of its line, whether the line is dashed, or it is a band."""

    colour: Colour
    width: int = THICK
    dashed: bool = False
    filled: bool = False


class Field:
    """Draw grid, curves and marks in the field between the axes, finer than the picture that they come into.

    Args:
        canvas: the picture.
        x_axis: the horizontal axis in the picture's pixels.
        y_axis: the vertical axis, its end above its start.
    """

    def __init__(self, canvas: Image, x_axis: Axis, y_axis: Axis) -> None:
        from PIL import Image, ImageDraw

        self.canvas, self.x_axis, self.y_axis = canvas, x_axis, y_axis
        self.left, self.top = round(x_axis.start), round(y_axis.end)
        self.width, self.height = round(x_axis.end) - self.left, round(y_axis.start) - self.top
        self.picture = Image.new("RGB", (self.width * FINER, self.height * FINER), PAPER)
        self.pen = ImageDraw.Draw(self.picture)

    def grid(self) -> None:
        """Draw the lines at the numbers, and paler ones between powers of ten."""
        for shade, x_values, y_values in (
            (PALE_GRID, self.x_axis.minor_ticks(), self.y_axis.minor_ticks()),
            (GRID, self.x_axis.ticks(), self.y_axis.ticks()),
        ):
            for x in x_values:
                self._line([(self._x(x), 0), (self._x(x), self.height * FINER)], shade, THIN)
            for y in y_values:
                self._line([(0, self._y(y)), (self.width * FINER, self._y(y))], shade, THIN)

    def band(self, band: Band, colour: Colour) -> None:
        """Fill a band."""
        for corners in band.outlines():
            self.pen.polygon([(self._x(x), self._y(y)) for x, y in corners], fill=colour)

    def curve(self, points: Points, look: Look) -> None:
        """Draw a series; a point between two gaps becomes a dot."""
        for stretch in stretches(points):
            pixels = [(self._x(x), self._y(y)) for x, y in stretch]
            if len(pixels) == 1 and 0 <= pixels[0][1] <= self.height * FINER:
                self._dot(pixels[0], look.width, look.colour)
            for piece in cut(pixels, 0.0, float(self.height * FINER)):
                for part in dashes(piece, *(length * FINER for length in DASH)) if look.dashed else [piece]:
                    self._line(part, look.colour, look.width)

    def marks(self, marks: Sequence[Mark]) -> None:
        """Draw the lines and dots of marks, the strong ones over the others."""
        for mark in sorted(marks, key=lambda mark: mark.strong):
            x, colour = self._x(mark.x), INK if mark.strong else SOFT
            line = [(x, 0.0), (x, float(self.height * FINER))]
            for piece in [line] if mark.strong else dashes(line, *(length * FINER for length in DOTS)):
                self._line(piece, colour, THIN)
            if mark.y is not None and math.isfinite(mark.y):
                self._dot((x, self._y(mark.y)), DOT + 3, PAPER)
                self._dot((x, self._y(mark.y)), DOT, colour)

    def finish(self) -> None:
        """Put the field into the picture, and its frame around it."""
        from PIL import ImageDraw

        self.canvas.paste(self.picture.reduce(FINER), (self.left, self.top))
        right, base = self.left + self.width, self.top + self.height
        ImageDraw.Draw(self.canvas).line((self.left, self.top, self.left, base, right, base), fill=FRAME, width=2)

    def _x(self, value: float) -> float:
        return (self.x_axis(value) - self.left) * FINER

    def _y(self, value: float) -> float:
        return (self.y_axis(value) - self.top) * FINER

    def _line(self, pixels: Sequence[Pixel], colour: Colour, width: int) -> None:
        self.pen.line(list(pixels), fill=colour, width=width * FINER, joint="curve")

    def _dot(self, at: Pixel, radius: int, colour: Colour) -> None:
        (x, y), far = at, radius * FINER
        self.pen.ellipse((x - far, y - far, x + far, y + far), fill=colour)


def cut(pixels: Sequence[Pixel], top: float, base: float) -> Iterator[list[Pixel]]:
    """Yield the pieces of a line that lie between two heights, each of two points or more."""
    piece: list[Pixel] = []
    for start, end in pairwise(pixels):
        inside = _inside(start, end, top, base)
        if inside is None or (piece and piece[-1] != inside[0]):
            if piece:
                yield piece
            piece = []
        if inside is not None:
            piece = [*(piece or inside[:1]), inside[1]]
    if piece:
        yield piece


def _inside(start: Pixel, end: Pixel, top: float, base: float) -> tuple[Pixel, Pixel] | None:
    """Return the part of a straight line between two heights, or None where it has none."""
    (x, y), rise = start, end[1] - start[1]
    if rise == 0:
        return (start, end) if top <= y <= base else None
    first, last = sorted(((top - y) / rise, (base - y) / rise))
    first, last = max(first, 0.0), min(last, 1.0)
    if first > last:
        return None
    run = end[0] - x
    return (
        start if first == 0 else (x + first * run, y + first * rise),
        end if last == 1 else (x + last * run, y + last * rise),
    )


def dashes(pixels: Sequence[Pixel], drawn: float, left_out: float) -> Iterator[list[Pixel]]:
    """Yield the pieces of a line that a dashed one draws, by the length along it.

    Args:
        pixels: the line's points.
        drawn: length of a dash.
        left_out: length of what is left out after it.
    """
    piece, rest, draws = [pixels[0]], drawn, True
    for (x, y), end in pairwise(pixels):
        while (far := math.hypot(end[0] - x, end[1] - y)) > rest:
            x, y = x + (end[0] - x) * rest / far, y + (end[1] - y) * rest / far
            if draws:
                yield [*piece, (x, y)]
            piece, draws = [(x, y)], not draws
            rest = drawn if draws else left_out
        rest -= far
        piece.append(end)
    if draws and len(piece) > 1:
        yield piece

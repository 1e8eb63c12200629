"""Contact sheets: rows of pictures and texts under their titles, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from trainkit.contracts import Panel
from trainkit.errors import printable

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = np.ndarray[Any, Any]
Row = tuple[str, Sequence[Panel]]

CELL, TALLEST, MOST_LINES = 300, 600, 80
# A plot has letters to read: it needs more room than a photograph, and then two stand beside each other.
PLOT_WIDTH, WIDE_CELL, WIDE_ACROSS = 800, 640, 2
MARGIN, GAP, TITLE_HEIGHT, LINE_HEIGHT = 16, 14, 22, 17
LARGEST_FACTOR = 12
# A little larger, in half the time: runs write many.
COMPRESSION = 1
INK, SOFT, PAPER, RULE = (28, 34, 48), (93, 102, 121), (251, 251, 253), (207, 212, 224)


def png(picture: Picture) -> bytes:
    """Return a picture [H, W, 3] of bytes as the content of a PNG file."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(picture, dtype=np.uint8)).save(buffer, "PNG", compress_level=COMPRESSION)
    return buffer.getvalue()


def sheet(rows: Sequence[Row]) -> Picture:
    """Return a picture [H, W, 3] of rows of panels.

    A row has its title above it, a panel its own. Pictures are shrunk to fit a column, small ones grow by whole
    factors; texts of more than 80 lines say how many more there are. Where panels are plots, columns are wide, and a
    row of more than two panels has several lines.

    Args:
        rows: (title, panels) pairs.
    """
    from PIL import Image, ImageDraw

    wide = any(is_plot(panel) for _, panels in rows for panel in panels)
    cell = WIDE_CELL if wide else CELL
    longest = max((len(panels) for _, panels in rows), default=1)
    columns = min(longest, WIDE_ACROSS) if wide else longest
    lines = [line for row in rows for line in _lines(row, cell, columns)]
    width = 2 * MARGIN + columns * cell + (columns - 1) * GAP
    canvas = Image.new("RGB", (width, 2 * MARGIN + sum(line.height + GAP for line in lines)), PAPER)
    pen = ImageDraw.Draw(canvas)
    top = MARGIN
    for line in lines:
        names_top = top
        if line.title is not None:
            pen.text((MARGIN, top), clipped(line.title, width - 2 * MARGIN, 16), fill=INK, font=font(16))
            names_top += TITLE_HEIGHT
        for column, (name, image) in enumerate(line.cells):
            left, below = MARGIN + column * (cell + GAP), names_top + TITLE_HEIGHT
            pen.text((left, names_top), clipped(name, cell, 13), fill=SOFT, font=font(13))
            canvas.paste(image, (left, below))
            pen.rectangle((left - 1, below - 1, left + image.width, below + image.height), outline=RULE)
        top += line.height + GAP
    return np.asarray(canvas)


@dataclass(frozen=True)
class _Line:
    """Hold what stands side by side: named pictures, below the title of their row, if they are its first."""

    title: str | None
    cells: Sequence[tuple[str, Image]]

    @property
    def height(self) -> int:
        titles = TITLE_HEIGHT * (1 if self.title is None else 2)
        return titles + max((image.height for _, image in self.cells), default=0)


def _lines(row: Row, cell: int, columns: int) -> list[_Line]:
    title, panels = row
    drawn = [(panel.title, _cell(panel, cell)) for panel in panels]
    first, *more = range(0, max(1, len(drawn)), columns)
    rest = [_Line(None, drawn[start : start + columns]) for start in more]
    return [_Line(title, drawn[first:columns]), *rest]


def is_plot(panel: Panel) -> bool:
    """Return whether a panel is a plot, with letters to read, rather than a photograph or a text."""
    return not isinstance(panel.content, str) and panel.content.shape[1] >= PLOT_WIDTH


def _cell(panel: Panel, width: int) -> Image:
    return _text_cell(panel.content, width) if isinstance(panel.content, str) else fitted(panel.content, width)


def fitted(picture: Picture, width: int = CELL) -> Image:
    """Return a picture that fits a cell: shrunk smoothly, or grown by a whole factor."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture, dtype=np.uint8))
    scale = min(width / image.width, TALLEST / image.height)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, Image.Resampling.HAMMING)
    factor = min(int(scale), LARGEST_FACTOR)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _text_cell(content: str, width: int) -> Image:
    from PIL import Image, ImageDraw

    lines = wrapped(content, width - GAP, 13)
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"… and {len(lines) - MOST_LINES + 1} more lines"]
    cell = Image.new("RGB", (width, GAP + LINE_HEIGHT * max(1, len(lines))), "white")
    pen = ImageDraw.Draw(cell)
    for number, line in enumerate(lines):
        pen.text((GAP // 2, GAP // 2 + LINE_HEIGHT * number), line, fill=INK, font=font(13))
    return cell


def wrapped(content: str, width: int, size: int) -> list[str]:
    """Return a text as lines no wider than `width` pixels, broken anywhere; indentation stays."""
    lines = []
    for line in printable(content).replace("\t", "    ").splitlines():
        rest = line
        while len(head := _head(rest, width, size)) < len(rest):
            lines.append(head)
            rest = rest[len(head) :]
        lines.append(rest)
    return lines


def clipped(content: str, width: int, size: int) -> str:
    """Return a text on one line no wider than `width` pixels, with an ellipsis where it was cut."""
    line = " ".join(printable(content).split())
    if len(_head(line, width, size)) == len(line):
        return line
    return _head(line, width - round(font(size).getlength("…")), size) + "…"


def _head(line: str, width: int, size: int) -> str:
    """Return the longest beginning of a line that is no wider than `width` pixels, at least one character."""
    measure = font(size).getlength
    low, high = min(1, len(line)), min(len(line), width)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if measure(line[:middle]) <= width else (low, middle - 1)
    return line[:low]


@cache
def font(size: int) -> Any:
    """Return Pillow's own font, which comes with it on every system."""
    from PIL import ImageFont

    return ImageFont.load_default(size)

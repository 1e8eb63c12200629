"""Contact sheets: rows of pictures and texts under their titles, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
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
MARGIN, GAP, TITLE_HEIGHT, LINE_HEIGHT = 16, 14, 22, 17
LARGEST_FACTOR = 12
INK, SOFT, PAPER, RULE = (28, 34, 48), (93, 102, 121), (251, 251, 253), (207, 212, 224)


def png(picture: Picture) -> bytes:
    """Return a picture [H, W, 3] of bytes as the content of a PNG file."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(picture, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def sheet(rows: Sequence[Row]) -> Picture:
    """Return a picture [H, W, 3] of rows of panels.

    A row has its title above it, a panel its own. Pictures are shrunk to fit a column, small ones grow by whole
    factors; texts of more than 80 lines say how many more there are.

    Args:
        rows: (title, panels) pairs.
    """
    from PIL import Image, ImageDraw

    columns = max((len(panels) for _, panels in rows), default=1)
    drawn = [[_cell(panel) for panel in panels] for _, panels in rows]
    heights = [max((cell.height for cell in cells), default=0) for cells in drawn]
    width = 2 * MARGIN + columns * CELL + (columns - 1) * GAP
    height = 2 * MARGIN + sum(2 * TITLE_HEIGHT + high + GAP for high in heights)
    canvas = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    top = MARGIN
    for (title, panels), cells, high in zip(rows, drawn, heights, strict=True):
        pen.text((MARGIN, top), clipped(title, width - 2 * MARGIN, 16), fill=INK, font=font(16))
        for column, (panel, cell) in enumerate(zip(panels, cells, strict=True)):
            left = MARGIN + column * (CELL + GAP)
            pen.text((left, top + TITLE_HEIGHT), clipped(panel.title, CELL, 13), fill=SOFT, font=font(13))
            at = (left, top + 2 * TITLE_HEIGHT)
            canvas.paste(cell, at)
            pen.rectangle((at[0] - 1, at[1] - 1, at[0] + cell.width, at[1] + cell.height), outline=RULE)
        top += 2 * TITLE_HEIGHT + high + GAP
    return np.asarray(canvas)


def _cell(panel: Panel) -> Image:
    return _text_cell(panel.content) if isinstance(panel.content, str) else fitted(panel.content)


def fitted(picture: Picture) -> Image:
    """Return a picture that fits a cell: shrunk smoothly, or grown by a whole factor."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture, dtype=np.uint8))
    scale = min(CELL / image.width, TALLEST / image.height)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, Image.Resampling.LANCZOS)
    factor = min(int(scale), LARGEST_FACTOR)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _text_cell(content: str) -> Image:
    from PIL import Image, ImageDraw

    lines = wrapped(content, CELL - GAP, 13)
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"… and {len(lines) - MOST_LINES + 1} more lines"]
    cell = Image.new("RGB", (CELL, GAP + LINE_HEIGHT * max(1, len(lines))), "white")
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

"""Samples and layouts as people look at them: screenshots with boxes, trees as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from trainkit.contracts import Sample

from .linear import written
from .tree import NAMELESS, Node, walk

SIDE = 384
INDENT = "  "
LABEL = 13
Area = tuple[float, float, float, float]
COLOURS = (
    (214, 64, 69),
    (38, 110, 190),
    (34, 139, 87),
    (176, 98, 0),
    (128, 72, 168),
    (0, 128, 140),
)


def picture_of(sample: Sample) -> np.ndarray:
    """Return a sample's screenshot with the boxes of its layout drawn in, [H, W, 3] of bytes; white without one."""
    return with_boxes(sample["image"], sample["layout"])


def with_boxes(image: np.ndarray | None, layout: Node | None) -> np.ndarray:
    """Return a picture of at least 384 pixels with the boxes of a layout, each with its base where there is room."""
    shown = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8) if image is None else image
    picture = Image.fromarray(shown)
    if picture.width < SIDE:
        factor = -(-SIDE // picture.width)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    boxes = [
        (part["key"].split("@")[0].split("$")[0], corners(part["attributes"]["box"], picture.width, picture.height))
        for part in (walk(layout) if layout is not None else ())
        if part["attributes"].get("box") is not None and part["key"] != NAMELESS
    ]
    for base, (left, top, right, bottom) in boxes:
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour_of(base), width=2)
    # What is smaller than its label would vanish below one.
    taken = [area for base, area in boxes if _is_small(pen, base, area)]
    for base, area in boxes:
        _label(pen, base, area, taken)
    return np.asarray(picture)


def colour_of(base: str) -> tuple[int, int, int]:
    """Return the colour of a base, in every picture the same."""
    return COLOURS[crc32(base.encode()) % len(COLOURS)]


def _size(pen: ImageDraw.ImageDraw, base: str) -> tuple[float, float]:
    # The third and the fourth number of the text's box are its right and lower end, seen from where it is written.
    _, _, wide, high = pen.textbbox((0, 0), base, font=ImageFont.load_default(LABEL))
    return wide + 2, high + 2


def _is_small(pen: ImageDraw.ImageDraw, base: str, area: Area) -> bool:
    wide, high = _size(pen, base)
    return area[2] - area[0] < wide + 4 and area[3] - area[1] < high + 4


def _label(pen: ImageDraw.ImageDraw, base: str, box: Area, taken: list[Area]) -> None:
    """Write a base on paper, within its box or beside it; one for which there is no room is left out."""
    at = (box[2] + 1, box[1]) if _is_small(pen, base, box) else (box[0] + 2, box[1] + 2)
    size = _size(pen, base)
    # At the right edge of the picture there may be room below.
    area = free_place(at, size, pen.im.size, taken) or free_place((box[0], box[3] + 1), size, pen.im.size, taken)
    if area is not None:
        taken.append(area)
        pen.rectangle(area, fill="white")
        pen.text((area[0] + 1, area[1]), base, fill=colour_of(base), font=ImageFont.load_default(LABEL))


def free_place(
    at: tuple[float, float], size: tuple[float, float], picture: tuple[int, int], taken: Sequence[Area]
) -> Area | None:
    """Return (left, top, right, bottom) of the first free place at a point or to its right, or None.

    A place lies in the picture and overlaps none that is taken; what would cross the right or lower edge is moved in.
    """
    wide, high = size
    left, top = max(0.0, min(at[0], picture[0] - wide)), max(0.0, min(at[1], picture[1] - high))
    for other in sorted(taken):
        if left < other[2] and other[0] < left + wide and top < other[3] and other[1] < top + high:
            left = other[2] + 1
    return (left, top, left + wide, top + high) if left + wide <= picture[0] else None


def corners(box: list[float], width: int, height: int) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom in pixels of a box [cx, cy, w, h] in shares."""
    x, y, wide, high = box
    return (x - wide / 2) * width, (y - high / 2) * height, (x + wide / 2) * width, (y + high / 2) * height


def outline(layout: Node) -> str:
    """Return a layout as indented text, a key a line."""

    def lines(part: Node, level: int) -> Iterator[str]:
        inner = level
        if part["key"] != NAMELESS:
            yield INDENT * level + part["key"]
            inner += 1
        for child in part["children"]:
            yield from lines(child, inner)

    return "\n".join(lines(layout, 0)) or "(nothing)"


def dsl(layout: Node) -> str:
    """Return a layout in the language of pix2code, a block a line as that data writes it."""
    text = " ".join(written(layout))
    return text.replace(" ,", ",").replace("{ ", "{\n").replace(" }", "\n}").replace("} ", "}\n") + "\n"

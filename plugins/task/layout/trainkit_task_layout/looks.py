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
Colour = tuple[int, int, int]
COLOURS: tuple[Colour, ...] = (
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
    pen, taken = ImageDraw.Draw(picture), list[Area]()
    for part in walk(layout) if layout is not None else ():
        box = part["attributes"].get("box")
        if box is None or part["key"] == NAMELESS:
            continue
        base = part["key"].split("@")[0].split("$")[0]
        colour = COLOURS[crc32(base.encode()) % len(COLOURS)]
        left, top, right, bottom = corners(box, picture.width, picture.height)
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
        _label(pen, (left + 2, top + 2), base, colour, taken)
    return np.asarray(picture)


def _label(pen: ImageDraw.ImageDraw, at: tuple[float, float], base: str, colour: Colour, taken: list[Area]) -> None:
    """Write a base on paper, beside the labels that are taken; one for which there is no room is left out."""
    font = ImageFont.load_default(LABEL)
    # A third and a fourth number of the text's box are its right and lower end, seen from where it is written.
    _, _, wide, high = pen.textbbox((0, 0), base, font=font)
    area = free_place(at, (wide + 2, high + 2), pen.im.size, taken)
    if area is not None:
        taken.append(area)
        pen.rectangle(area, fill="white")
        pen.text((area[0] + 1, area[1]), base, fill=colour, font=font)


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

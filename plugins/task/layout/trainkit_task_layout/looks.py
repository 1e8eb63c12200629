"""Samples and layouts as people look at them: screenshots with boxes, trees as text."""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

import numpy as np
from PIL import Image, ImageDraw
from trainkit.contracts import Sample

from .linear import written
from .tree import NAMELESS, Node, walk

SIDE = 384
INDENT = "  "
COLOURS = ((214, 64, 69), (38, 110, 190), (34, 139, 87), (176, 98, 0), (128, 72, 168), (0, 128, 140))


def picture_of(sample: Sample) -> np.ndarray:
    """Return a sample's screenshot with the boxes of its layout drawn in, [H, W, 3] of bytes; white without one."""
    return with_boxes(sample["image"], sample["layout"])


def with_boxes(image: np.ndarray | None, layout: Node | None) -> np.ndarray:
    """Return a picture of at least 384 pixels with the boxes of a layout, each with its base."""
    shown = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8) if image is None else image
    picture = Image.fromarray(shown)
    if picture.width < SIDE:
        factor = -(-SIDE // picture.width)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    for part in walk(layout) if layout is not None else ():
        box = part["attributes"].get("box")
        if box is None or part["key"] == NAMELESS:
            continue
        base = part["key"].split("@")[0].split("$")[0]
        colour = COLOURS[crc32(base.encode()) % len(COLOURS)]
        left, top, right, bottom = corners(box, picture.width, picture.height)
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
        pen.text((left + 3, top + 2), base, fill=colour)
    return np.asarray(picture)


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

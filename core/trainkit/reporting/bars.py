"""Bars of shares as a picture: which of several things weighs most, in groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .contactsheet import INK, PAPER, RULE, SOFT, Picture, clipped, font
from .plot import COLOURS, EDGE, LABEL, LINE, NUMBER, RIGHT, TITLE, WIDTH

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw as Pen

HIGH, MOST_BARS, LABELS = 26, 12, 420


def bar_plot(groups: Mapping[str, Mapping[str, float]], *, title: str = "", most: int = MOST_BARS) -> Picture:
    """Return bars as a picture [H, W, 3] of bytes: in each group the largest first, each with its share of the group.

    Args:
        groups: heading -> name -> share, from 0 to 1.
        title: stands above all.
        most: bars of a group; what is left is one more, 'N others'.

    Raises:
        ValueError: there is nothing to draw.
    """
    from PIL import Image, ImageDraw

    shown = {heading: _largest(shares, most) for heading, shares in groups.items() if shares}
    if not shown:
        raise ValueError("nothing to plot: no group has a share")
    top = EDGE + (LINE + 12 if title else 0)
    height = top + sum(LINE + 8 + len(shares) * LINE + 16 for shares in shown.values()) + EDGE // 2
    canvas = Image.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    if title:
        pen.text((EDGE, EDGE), clipped(title, WIDTH - EDGE - RIGHT, TITLE), fill=INK, font=font(TITLE))
    largest = max(share for shares in shown.values() for _, share in shares) or 1.0
    for number, (heading, shares) in enumerate(shown.items()):
        pen.text((EDGE, top), clipped(heading, WIDTH - EDGE - RIGHT, LABEL), fill=SOFT, font=font(LABEL))
        top += LINE + 8
        for name, share in shares:
            _bar(pen, top, name, share, share / largest, COLOURS[number % len(COLOURS)])
            top += LINE
        top += 16
    return np.asarray(canvas)


def _largest(shares: Mapping[str, float], most: int) -> list[tuple[str, float]]:
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    rest = ordered[most:]
    return ordered[:most] + ([(f"{len(rest)} others", sum(share for _, share in rest))] if rest else [])


def _bar(pen: Pen, top: int, name: str, share: float, length: float, colour: tuple[int, int, int]) -> None:
    text = clipped(name, LABELS, NUMBER)
    at = EDGE + LABELS
    pen.text((at - font(NUMBER).getlength(text), top), text, fill=INK, font=font(NUMBER))
    left, room = at + 16, WIDTH - RIGHT - at - 16 - 110
    pen.rectangle((left, top + 2, left + room, top + HIGH), fill=PAPER, outline=RULE)
    if length > 0:
        pen.rectangle((left, top + 2, left + max(2, round(room * length)), top + HIGH), fill=colour)
    pen.text((left + room + 14, top), f"{share:.1%}", fill=INK, font=font(NUMBER))

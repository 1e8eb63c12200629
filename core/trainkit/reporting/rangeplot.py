"""The plot of a learning-rate range test: loss over rate, the suggestions marked."""

from __future__ import annotations

import math
from itertools import pairwise

from trainkit.lrfind.rangetest import RangeTest

from .contactsheet import Picture
from .plot import Mark, line_plot

NAMES = {"steepest": "steepest", "valley": "valley", "minimum": "minimum / 10"}


def range_plot(test: RangeTest, title: str = "") -> Picture:
    """Return the plot as a picture [H, W, 3] of bytes; the suggestion that counts is drawn full, the others dotted.

    Raises:
        ValueError: no loss is finite.
    """
    smooth = list(zip(test.counted[0], test.smooth, strict=True))
    measured = list(zip(test.rates, test.losses, strict=True))
    return line_plot(
        {"loss of each step": measured, "smoothed": smooth},
        "learning rate",
        "training loss",
        title=title,
        log_x=True,
        y_range=test.value_range(),
        faint=["loss of each step"],
        marks=[
            Mark(
                found.rate, f"{NAMES[rule]}: {_text(found.rate)}", _height(smooth, found.rate), strong=rule == test.rule
            )
            for rule, found in test.suggestions.items()
            if found.rate is not None
        ],
    )


def _text(rate: float) -> str:
    return f"{rate:.2e}".replace("e-0", "e-")


def _height(smooth: list[tuple[float, float]], rate: float) -> float:
    """Return the smoothed loss at a rate, between the rates that were tested."""
    for (left, below), (right, above) in pairwise(smooth):
        if left <= rate <= right:
            share = math.log(rate / left) / math.log(right / left)
            return below + share * (above - below)
    return math.nan

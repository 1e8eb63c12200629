"""Curves in the terminal, from block characters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainkit.api import RangeTest

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH, HEIGHT = 64, 6


def draw_range_test(test: RangeTest) -> str:
    """Return the smoothed loss over the rates as a drawing, an arrow below the suggestion; '' without a loss."""
    low, high = test.value_range() or (0.0, 0.0)
    if high <= low:
        return ""
    rates = test.counted[0]
    places = [round(i * (len(rates) - 1) / (WIDTH - 1)) for i in range(WIDTH)]
    shares = [min(max(test.smooth[place] - low, 0.0), high - low) for place in places]
    lines = draw([*shares, high - low], HEIGHT)
    labels = [f"{high:.3g}", *[""] * (HEIGHT - 2), f"{low:.3g}"]
    body = [f"  {label:>8} │{line[:WIDTH]}" for label, line in zip(labels, lines, strict=True)]
    margin = " " * 11
    first, last = f"{rates[0]:.2g}", f"{rates[-1]:.2g}"
    under = [f"{' ' * 10}└{'─' * WIDTH}", f"{margin}{first}{last.rjust(WIDTH - len(first))}"]
    if test.suggestion is not None:
        wanted = math.log(test.suggestion)
        column = min(range(WIDTH), key=lambda i: abs(math.log(rates[places[i]]) - wanted))
        under.insert(1, f"{margin}{' ' * column}▲")
    return "\n".join(["training loss over learning rate", *body, *under])


def draw(values: list[float], height: int) -> list[str]:
    """Return the lines of a bar drawing of non-negative values, the top line first."""
    top = max(values) or 1.0
    eighths = [round(value / top * height * 8) for value in values]
    return ["".join(BLOCKS[min(8, max(0, level - 8 * row))] for level in eighths) for row in reversed(range(height))]

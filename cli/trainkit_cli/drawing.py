"""Curves in the terminal, from block characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainkit.draft import Draft

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH, HEIGHT = 64, 6


def draw_curve(draft: Draft) -> str:
    """Return the learning rate over the plan as a drawing with its ends labelled."""
    from trainkit.curve import awaited_metric, learning_rate_curve

    curve = learning_rate_curve(draft, WIDTH)
    top = max(rate for _, rate in curve)
    lines = draw([rate for _, rate in curve], HEIGHT)
    labels = [f"{top:.1e}", *[""] * (HEIGHT - 2), "0"]
    body = [f"  {label:>8} │{line}" for label, line in zip(labels, lines, strict=True)]
    last = f"{curve[-1][0]}"
    axis = "  " + " " * 9 + "└" + "─" * len(lines[0])
    awaited = awaited_metric(draft)
    title = f"learning rate, as long as {awaited} improves" if awaited else "learning rate"
    return "\n".join([title, *body, axis, "  " + " " * 10 + "0" + last.rjust(len(lines[0]) - 1)])


def draw(values: list[float], height: int) -> list[str]:
    """Return the lines of a bar drawing of non-negative values, the top line first."""
    top = max(values) or 1.0
    eighths = [round(value / top * height * 8) for value in values]
    return ["".join(BLOCKS[min(8, max(0, level - 8 * row))] for level in eighths) for row in reversed(range(height))]

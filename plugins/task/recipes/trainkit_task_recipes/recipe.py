"""A recipe as lines, and the text that is learned: ingredients and instructions under their headers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

INGREDIENTS, INSTRUCTIONS = "Ingredients:", "Instructions:"
EASY = 6
_LIST_MARK = re.compile(r"(?:[-*+\u2022\u00b7]\s+|\d{1,3}[.)]\s+)+")


@dataclass(frozen=True)
class Recipe:
    """Hold a recipe.

    Args:
        title: the name of the dish.
        ingredients: a line each; one that ends in ':' heads those after it.
        steps: a line each.
    """

    title: str
    ingredients: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Return the text that is learned: a section for what there is."""
        parts = []
        if self.ingredients:
            parts.append(
                "\n".join([INGREDIENTS, *(line if is_group(line) else f"- {line}" for line in self.ingredients)])
            )
        if self.steps:
            parts.append("\n".join([INSTRUCTIONS, *(f"{number}. {step}" for number, step in enumerate(self.steps, 1))]))
        return "\n\n".join(parts)

    @property
    def difficulty(self) -> float:
        """Return how difficult it is."""
        return difficulty_of(sum(not is_group(line) for line in self.ingredients), len(self.steps))


def is_group(line: str) -> bool:
    """Return whether a line of ingredients heads others, as 'For the sauce:'."""
    return line.endswith(":") and not line[:1].isdigit()


def difficulty_of(ingredients: int, steps: int) -> float:
    """Return max(ingredients, steps) / 6: up to 1 a recipe is easy, up to 2 it is medium.

    Source: 4.3.
    """
    return max(ingredients, steps) / EASY


def unmarked(lines: Sequence[str]) -> tuple[str, ...]:
    """Return lines without bullets and list numbers."""
    return tuple(_LIST_MARK.sub("", line, count=1) if _LIST_MARK.match(line) else line for line in lines)

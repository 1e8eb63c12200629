"""Recipe quality: whether a text has the form of a recipe, in four parts and their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trainkit import SumMetric, hookimpl
from trainkit.routine import write_row

from .quantities import has_quantity
from .sections import Sections, sections_of
from .verbs import has_action

if TYPE_CHECKING:
    from trainkit.live import Run

OVERALL = "overall_quality"
PARTS = ("ingredient_coherence", "instruction_quality", "completeness", "format_correctness")
FEWEST_CHARACTERS, MOST_CHARACTERS = 100, 2000
TAG = "recipe"


def share(holds: Sequence[bool]) -> float:
    """Return the share of lines of which something holds; 0 where there is no line."""
    return sum(holds) / len(holds) if holds else 0.0


def completeness(sections: Sections, characters: int) -> float:
    """Return .33 for ingredients, .33 for steps, .34 for 100 to 2000 characters; 0 to 1."""
    has_length = FEWEST_CHARACTERS <= characters <= MOST_CHARACTERS
    return (33 * bool(sections.ingredients) + 33 * bool(sections.steps) + 34 * has_length) / 100


def scores_of(text: str) -> dict[str, float]:
    """Return the overall quality of a text and its four parts, each in [0, 1].

    Args:
        text: what should be a recipe; white space around it does not count as characters.

    Source: 6.4.
    """
    sections = sections_of(text)
    parts = {
        "ingredient_coherence": share([has_quantity(line) for line in sections.ingredients]),
        "instruction_quality": share([has_action(step) for step in sections.steps]),
        "completeness": completeness(sections, len(text.strip())),
        "format_correctness": len(sections.headers) / 2,
    }
    return {OVERALL: sum(parts.values()) / len(parts), **parts}


class RecipeQuality(SumMetric):
    """Compute how far generated texts have the form of a recipe: four parts, and their mean, over all texts.

    Rules are those of 6.4. Form is what is judged: a copy of a training text, or a dish that nobody could eat, may have
    a quality of 1. Beside the tags of every metric, the figures of the validation split are logged as
    recipe/overall_quality, recipe/ingredient_coherence, and so on.
    """

    reads = ("texts",)

    def scores(self, text: str) -> Mapping[str, float]:
        """Return the overall quality of one text and its parts, for whoever needs the quality of a sample."""
        return scores_of(text)

    def counts(self, text: str) -> tuple[int, int]:
        """Return the numbers of ingredients and steps of one text."""
        sections = sections_of(text)
        return len(sections.ingredients), len(sections.steps)

    def update(self, texts: Sequence[str]) -> None:
        """Add a batch of texts."""
        for text in texts:
            self.add(texts=1, **scores_of(text))

    def compute(self) -> dict[str, float]:
        """Return the mean of each figure, the overall quality first."""
        return {name: self.ratio(name, "texts") for name in (OVERALL, *PARTS)}

    @hookimpl
    def after_evaluation(self, run: Run, split: str, results: Mapping[str, float]) -> None:
        """Log the figures of a validation under the names of 6.4; the final results have rows of their own."""
        if split == "val" and results and run.moment.evaluated_step != run.moment.step:
            write_row(run, {f"{TAG}/{name}": value for name, value in self.compute().items()})

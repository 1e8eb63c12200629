"""The task 'recipes': text to text, where the text is a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainkit.derived import BaseTask, DerivedTask
from trainkit.errors import UsageError
from trainkit.nested import built

from .schema import RecipeSchema

SAMPLE = Path(__file__).parent / "sample" / "recipes.jsonl"
TEMPLATES = (
    "Create a recipe: {text}",
    "Generate a detailed recipe: {text}",
    "Make a dish with: {text}",
    "Recipe for: {text}",
    "How to prepare: {text}",
    "Cooking instructions: {text}",
    "{text}",
)
BASE = {"use": "seq2seq", "templates": TEMPLATES}
PROMPTS = ("Apple pie", "Tomato soup with basil", "Chocolate chip cookies", "Vegetable curry with rice")
EPOCHS = 6
SMOOTHING = 0.1
CURRICULUM = {
    "use": "curriculum",
    "mode": "staged",
    "by": "difficulty",
    "bars": [1.0, 2.0],
    "ends": [2 / EPOCHS, 4 / EPOCHS],
}


class RecipesTask(DerivedTask):
    """Write a recipe, ingredients and instructions, for the name of a dish.

    Records are recipes in fields (title, ingredients, directions, by their usual names), Markdown files, or an input
    with an output and perhaps a quality_score. Every option of the task below is one of this task, too.

    Args:
        base: the task below, which writes texts for texts.
        judge: metric that tells the quality of a recipe where the data does not.
    """

    def __init__(self, base: BaseTask = BASE, judge: str = "recipe-quality") -> None:
        super().__init__(base)
        found = built("metric", judge)
        if not all(callable(getattr(found, power, None)) for power in ("scores", "counts")):
            raise UsageError(
                f"task.judge: metric '{judge}' does not score one text",
                do="name one with the methods `scores` and `counts`, as recipe-quality",
            )
        self.base.schema = RecipeSchema(found, self.base.schema)
        self.base.embedded = embedded
        self.base.example_prompts = PROMPTS

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Return the settings that this task proposes."""
        return {
            **self.base.defaults,
            "loss.use": "cross-entropy",
            "loss.label_smoothing": SMOOTHING,
            "metric": ["perplexity", "recipe-quality", "text-overlap"],
            "augmenter": ["recipe-text"],
            "callback": ["sample-outputs", "quality-threshold", CURRICULUM, "gradient-noise"],
            "loop.epochs": EPOCHS,
        }


def embedded() -> Iterator[Mapping[str, Any]]:
    """Yield the records of the embedded sample: recipes of the public domain, in Markdown."""
    with SAMPLE.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)

"""The task 'recipes': text to text, where the text is a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import PositiveInt
from torch import nn
from trainkit import hookimpl
from trainkit.contracts import SAMPLE_ID, Batch, Dataset, Outputs
from trainkit.derived import BaseTask, DerivedTask
from trainkit.errors import UsageError
from trainkit.live import Run
from trainkit.nested import built
from trainkit_task_seq2seq.baselines import Baseline

from .judged import JudgedFirst
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
SMOOTHING, SMOOTHING_UNTIL = 0.1, 0.5
CURRICULUM = {
    "use": "curriculum",
    "mode": "staged",
    "by": "difficulty",
    "bars": [1.0, 2.0],
    "ends": [1 / 3, 2 / 3],
    "latest": [2, 4],
}


class RecipesTask(DerivedTask):
    """Write a recipe, ingredients and instructions, for the name of a dish.

    Records are recipes in fields (title, ingredients, directions, by their usual names), Markdown files, or an input
    with an output and perhaps a quality_score. Every option of the task below is one of this task, too.

    Args:
        base: the task below, which writes texts for texts.
        judge: metric that tells the quality of a recipe where the data does not.
        judged: how many samples of a split are written for metrics that judge texts, the first ones, by the model and
            by baselines alike: to write takes far longer than to measure a loss. Every sample if none.
    """

    predicts = frozenset({"texts", "references", "inputs"})

    def __init__(self, base: BaseTask = BASE, judge: str = "recipe-quality", judged: PositiveInt | None = 64) -> None:
        super().__init__(base)
        self.judged = judged
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
            "loss.until": SMOOTHING_UNTIL,
            "metric": [*self.base.defaults["metric"], "recipe-quality", "text-overlap"],
            "augmenter": ["recipe-text"],
            "callback": ["sample-outputs", "quality-threshold", CURRICULUM, "gradient-noise"],
        }

    @property
    def adjustable(self) -> frozenset[str]:
        """Return the options that may change after training."""
        names: frozenset[str] = self.base.adjustable
        return names | {"judged"}

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Warn of what the task below warns of."""
        if hasattr(self.base, "on_run_start"):
            self.base.on_run_start(run)

    def measured(self, dataset: Dataset, count: int) -> Dataset:
        """Return the first samples of a split as the task below measures them, the judged ones in batches together."""
        found: Dataset = self.base.measured(dataset, count)
        return found if self.judged is None else JudgedFirst(found, self.judged)

    def predict(self, model: nn.Module, batch: Batch, outputs: Outputs) -> Mapping[str, Any]:
        """Return the recipes that the model writes, with references and inputs: of the first `judged` samples."""
        kept = {name: values[: self._judged_of(batch)] for name, values in batch.items()}
        texts = self.base.predict(model, kept, outputs)["texts"] if kept["inputs"] else []
        return {"texts": texts, "references": kept["references"], "inputs": kept["inputs"]}

    def baselines(self) -> Mapping[str, Baseline]:
        """Return those of the task below; of what they write the same samples are judged as of the model."""
        return {name: self._judged_alike(predict) for name, predict in self.base.baselines().items()}

    def _judged_alike(self, predict: Baseline) -> Baseline:
        def judged(batch: Batch) -> Mapping[str, Any]:
            found = dict(predict(batch))
            if "texts" in found:
                found |= {name: batch[name] for name in ("references", "inputs")}
                found |= {name: found[name][: self._judged_of(batch)] for name in self.predicts}
            return found

        return judged

    def _judged_of(self, batch: Batch) -> int:
        """Return how many samples of a batch are among the judged ones; these come first."""
        size = len(batch["inputs"])
        if self.judged is None:
            return size
        numbers = batch[SAMPLE_ID].tolist() if SAMPLE_ID in batch else range(size)
        return sum(number < self.judged for number in numbers)


def embedded() -> Iterator[Mapping[str, Any]]:
    """Yield the records of the embedded sample: recipes of the public domain, in Markdown."""
    with SAMPLE.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)

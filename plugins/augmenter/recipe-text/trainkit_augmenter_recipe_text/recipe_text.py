"""The augmenter 'recipe-text': prompts of recipes asked in other words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from trainkit import UsageError
from trainkit.contracts import Sample
from trainkit.nested import built
from trainkit.templates import checked

from .wording import TEMPLATES, TIPS, in_template, paraphrased, with_tip

Probability = Annotated[float, Field(ge=0, le=1)]
Templates = Annotated[tuple[str, ...], Field(min_length=1)]
STRATEGIES = ("template", "verbs", "identity")


class RecipeText:
    """Ask for a recipe in other words: another template, other verbs, or with a tip; exactly one of them.

    Rules are those of 5.4. With a probability one of the ways is drawn: a tip with the probability of `tip`, else a
    template, other verbs or none of it, in equal parts [reading]. A template takes the place of the one that the prompt
    is in. Verbs are replaced where they give an order, at the begin of a sentence or after 'and' and 'then' [reading],
    so that 'cake mix', 'medium heat' and amounts stay. The target stays as it is unless `target` is set: a model must
    not learn to write tips. What the target then becomes is kept only if its quality does not fall, as the metric
    `judge` sees it; its lines of ingredients stay.

    Args:
        probability: with which a sample is changed.
        tip: probability of a tip, of the changed ones.
        templates: instruction formats, each with {text} once.
        target: change verbs in the target, too, and append the tip to it.
        judge: name of the metric that tells the quality of a target.

    Source: 5.4.
    """

    def __init__(
        self,
        probability: Probability = 0.3,
        tip: Probability = 0.1,
        templates: Templates = TEMPLATES,
        target: bool = False,
        judge: str = "recipe-quality",
    ) -> None:
        self.templates = checked(templates, "augmenter.recipe-text.templates")
        self.probability, self.tip, self.target = probability, tip, target
        self.reads = frozenset({"input", "target"} if target else {"input"})
        self._judge: Any = built("metric", judge) if target else None
        if target and not hasattr(self._judge, "scores"):
            raise UsageError(
                f"augmenter.recipe-text.judge: metric '{judge}' does not score one text",
                do="name one with a method `scores`, as recipe-quality",
            )

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return the sample, or a copy in other words; equal generators give equal copies."""
        if generator.random() >= self.probability:
            return sample
        if generator.random() < self.tip:
            return self._with_tip(sample, TIPS[int(generator.integers(len(TIPS)))])
        strategy = STRATEGIES[int(generator.integers(len(STRATEGIES)))]
        if strategy == "template":
            template = self.templates[int(generator.integers(len(self.templates)))]
            return {**sample, "input": in_template(sample["input"], template, self.templates)}
        return self._with_verbs(sample, generator) if strategy == "verbs" else sample

    def _with_tip(self, sample: Sample, tip: str) -> Sample:
        return self._reworded(sample, lambda text: with_tip(text, tip))

    def _with_verbs(self, sample: Sample, generator: np.random.Generator) -> Sample:
        return self._reworded(sample, lambda text: paraphrased(text, lambda count: int(generator.integers(count))))

    def _reworded(self, sample: Sample, reword: Callable[[str], str]) -> Sample:
        changed = {**sample, "input": reword(sample["input"])}
        if self.target and sample["target"] is not None:
            target = reword(sample["target"])
            before, after = self._judge.scores(sample["target"]), self._judge.scores(target)
            if all(after[figure] >= value for figure, value in before.items()):
                changed["target"] = target
        return changed

"""Token error: the edits between what is written and what is right, per token of what is right."""

from __future__ import annotations

from collections.abc import Sequence
from operator import eq

from trainkit import SumMetric

from .levenshtein import levenshtein

Tokens = Sequence[Sequence[str]]


class TokenError(SumMetric):
    """Compute error, the Levenshtein distance of written tokens to the right ones / right tokens.

    Distances and tokens of all sequences are summed before they are divided, so long sequences weigh more; the error
    may pass 1 where too much is written. Besides: `exact`, the share of sequences without a fault, and
    `position-accuracy`, the share of right tokens that stand at their own place, which one token too many at the
    start brings to nothing. Without a sequence `exact` is NaN, without a right token the others.
    """

    higher_is_better = False

    def update(self, predicted_tokens: Tokens, target_tokens: Tokens) -> None:
        """Add a batch: for each sample the tokens that were written, and the right ones."""
        edits = tokens = exact = in_place = 0
        for predicted, target in zip(predicted_tokens, target_tokens, strict=True):
            distance = levenshtein(predicted, target)
            edits, tokens, exact = edits + distance, tokens + len(target), exact + (distance == 0)
            in_place += sum(map(eq, predicted, target))
        self.add(edits=edits, tokens=tokens, exact=exact, in_place=in_place, sequences=len(target_tokens))

    def compute(self) -> dict[str, float]:
        """Return `error`, `exact` and `position-accuracy`."""
        return {
            "error": self.ratio("edits", "tokens"),
            "exact": self.ratio("exact", "sequences"),
            "position-accuracy": self.ratio("in_place", "tokens"),
        }

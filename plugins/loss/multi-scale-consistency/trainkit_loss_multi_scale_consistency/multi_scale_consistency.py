"""A loss around a loss: what is predicted at several resolutions should agree."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import NonNegativeFloat
from torch import Tensor, nn
from trainkit import LossOutput
from trainkit.contracts import IGNORED_LABEL
from trainkit.nested import InnerLoss, built, call, reads_of

from .agreement import Distance, Pairs, disagreement

TERM = "consistency"


class MultiScaleConsistency(nn.Module):
    """Add to another loss how far predictions of the same slots at several resolutions are apart.

    The model gives `scale_logits` [B, R, N, C], resolutions ascending, in training. The term is the mean over pairs of
    resolutions, then over slots: those with a label, and of these only the `masked` ones where they are told. The
    batch's mean enters with the count of the main loss [reading]: under accumulation it is the mean over
    micro-batches weighted by that count, and exact where the main loss counts the same slots.

    With fewer than two resolutions, or none, the term is an exact 0: the main loss is passed on and the term is named
    inactive, in training; in evaluation one resolution is the rule. How often several are computed is the model's
    business, as its forward passes are what it costs.

    Args:
        main: the loss that is added to.
        distance: 'mse' on probabilities, 'js', or 'kl' in both directions with no gradient to the higher resolution.
        pairs: compare 'all' resolutions with each other, or 'adjacent' ones.
        weight: weight of the term; 0 leaves it out.

    Source: 3.6 and, for the weight, 3.7 of the algorithm reference [reading].
    """

    def __init__(
        self,
        main: InnerLoss = "masked-diffusion",
        distance: Distance = "mse",
        pairs: Pairs = "all",
        weight: NonNegativeFloat = 0.2,
    ) -> None:
        super().__init__()
        self.main = built("loss", main)
        self.distance: Distance = distance
        self.pairs: Pairs = pairs
        self.weight = weight
        self.reads, optional = reads_of(self.main)
        own = ("scale_logits", "labels", "masked") if weight else ()
        self.reads_optional = tuple(name for name in dict.fromkeys([*optional, *own]) if name not in self.reads)

    def forward(self, **values: Any) -> LossOutput:
        """Return the main loss of these values, with the disagreement added."""
        inner = call(self.main, values)
        inner.terms = inner.terms or {"main": (inner.sum, inner.count)}
        scale_logits = values.get("scale_logits")
        if not self.weight:
            return inner
        if scale_logits is None or scale_logits.shape[1] < 2:
            inner.inactive = [*inner.inactive, TERM] if self.training else inner.inactive
            return inner
        apart = disagreement(scale_logits, self.distance, self.pairs)
        slots = counted(apart, values.get("labels"), values.get("masked"))
        total = (apart * slots).sum() / slots.sum().clamp(min=1) * inner.count
        return LossOutput(
            inner.sum + self.weight * total,
            inner.count,
            parts={**inner.parts, TERM: (total.detach(), inner.count)},
            weights={**inner.weights, TERM: self.weight},
            per_sample=partial(with_inner, inner, self.weight * apart.detach() * slots, slots),
            terms={**inner.terms, TERM: (total, inner.count)},
            inactive=inner.inactive,
        )

    def extra_repr(self) -> str:
        return f"distance={self.distance}, pairs={self.pairs}, weight={self.weight}"


def with_inner(inner: LossOutput, apart: Tensor, slots: Tensor) -> Any:
    """Return the loss of each sample [B], the term included; None where the main loss cannot tell."""
    of_samples = apart.sum(1) / slots.sum(1).clamp(min=1)
    return None if inner.per_sample is None else inner.per_sample + of_samples


def counted(apart: Tensor, labels: Tensor | None, masked: Tensor | None) -> Tensor:
    """Return as 1 and 0 which slots [B, N] count: all that are slots, of these the hidden ones where they are told."""
    slots = apart.new_ones(apart.shape)
    if labels is not None:
        slots = slots.masked_fill(labels == IGNORED_LABEL, 0.0)
    return slots if masked is None else slots.masked_fill(~masked, 0.0)

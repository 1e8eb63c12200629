"""Perplexity: how many tokens, all equally likely, the model hesitates between; from sums over all real tokens."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional
from trainkit import SumMetric
from trainkit.contracts import IGNORED_LABEL
from trainkit.likelihood import widened


def likelihood_sums(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the plain negative log-likelihood in nats, summed in float64 over the real labels, and their number.

    Args:
        logits: [..., V]; half precision is widened to float32.
        labels: [...] class indices; -100 is not real.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits have the shape {list(logits.shape)}, labels {list(labels.shape)}: "
            "perplexity wants logits [..., V] at the positions of the labels"
        )
    classes, targets = widened(logits).reshape(-1, logits.shape[-1]), labels.reshape(-1)
    costs = functional.cross_entropy(classes, targets, ignore_index=IGNORED_LABEL, reduction="none")
    return costs.double().sum(), (targets != IGNORED_LABEL).sum()


def perplexity_of(nats: float) -> float:
    """Return exp of the mean negative log-likelihood; infinity where that is beyond what a number can hold."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


class Perplexity(SumMetric):
    """Compute exp of the mean plain negative log-likelihood of all real tokens, and the same in bits.

    The likelihoods and the tokens of all batches are summed before they are divided: it is not the mean of the
    perplexities of batches, nor of anything smoothed, whatever the loss. `logits` are those of the forward pass that
    the loss sees, each after the right tokens (teacher forcing). Beyond exp(709.78) it is infinite; `bits` then still
    tells how bad it is. Without a real token both are NaN.

    Source: 6.2 of the algorithm reference.
    """

    higher_is_better = False

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: logits [B, L, V] for labels [B, L], or [B, V] for [B]."""
        nats, tokens = likelihood_sums(logits, labels)
        self.add(nats=nats, tokens=tokens)

    def compute(self) -> dict[str, float]:
        """Return `perplexity` and `bits`, the mean negative log-likelihood of a token in bits."""
        nats = self.ratio("nats", "tokens")
        return {"perplexity": perplexity_of(nats), "bits": nats / math.log(2)}

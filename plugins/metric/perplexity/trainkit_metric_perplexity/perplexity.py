"""Perplexity: how many tokens, all equally likely, the model hesitates between; from sums over all real tokens."""

from __future__ import annotations

import math

from torch import Tensor
from trainkit import SumMetric
from trainkit.likelihood import label_costs, perplexity_of


def likelihood_sums(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the plain negative log-likelihood in nats, summed in float64 over the real labels, and their number.

    Args:
        logits: [..., V]; half precision is widened to float32.
        labels: [...] class indices; -100 is not real.
    """
    costs, real = label_costs(logits, labels, "perplexity")
    return costs.sum(), real.sum()


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

"""What is said about a page or a batch as a whole: its flags, and how its predictions are spread over the classes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

Diversity = Literal["empirical", "uniform"]
MOST_POSITIVE_WEIGHT = 100.0


def positive_weights(counts: Tensor) -> Tensor:
    """Return neg / pos of each flag [P], from how often it was off and on [2, P].

    One is added to both [reading], so that it is 1 before anything was seen, and it is at most 100 [reading].
    """
    return ((counts[0] + 1) / (counts[1] + 1)).clamp(max=MOST_POSITIVE_WEIGHT)


def property_losses(logits: Tensor, flags: Tensor, pos_weight: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy of flags [B, P], the mean over the flags of each sample: [B]."""
    return binary_cross_entropy_with_logits(logits, flags, pos_weight=pos_weight, reduction="none").flatten(1).mean(1)


def mean_prediction(logits: Tensor, real: Tensor) -> Tensor:
    """Return the mean prediction [V] over the real positions [...] of logits [..., V]; zeros where there are none."""
    probabilities = torch.where(real.unsqueeze(-1), logits.softmax(-1), 0.0)
    return probabilities.flatten(0, -2).sum(0) / real.sum().clamp(min=1)


def divergence(mean: Tensor, counts: Tensor, kind: Diversity = "empirical") -> Tensor:
    """Return the divergence of a mean prediction [V] from where it should be, in nats: never below 0.

    'empirical': KL(mean || training marginal), the marginal from counts [V] plus one each, so that unseen classes stay
    possible [impl]. 'uniform': ln V - H(mean), which fights a truth that is skewed. Of no prediction at all it is 0.
    """
    marginal = (counts + 1).to(mean.dtype) if kind == "empirical" else torch.ones_like(mean)
    tiny = torch.finfo(mean.dtype).tiny
    return (mean * (mean.clamp(min=tiny).log() - (marginal / marginal.sum()).log())).sum()


def class_counts(labels: Tensor, real: Tensor, classes: int) -> Tensor:
    """Return how often each class [V] is the label of a real position."""
    counts = torch.zeros(classes, dtype=torch.long, device=labels.device)
    return counts.index_add_(0, labels.masked_fill(~real, 0).flatten(), real.flatten().long())


def flag_counts(flags: Tensor) -> Tensor:
    """Return how often each flag [B, P] is off and on: [2, P]."""
    on = flags.sum(0).long()
    return torch.stack([len(flags) - on, on])

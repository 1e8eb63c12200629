"""How far predictions of the same slots at several resolutions are apart. Pure functions."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from typing import Literal

import torch
from torch import Tensor

Distance = Literal["mse", "js", "kl"]
Pairs = Literal["all", "adjacent"]


def distance(low: Tensor, high: Tensor, kind: Distance = "mse") -> Tensor:
    """Return how far two predictions are apart at each position: [...] from log-probabilities [..., C], in nats.

    * mse: mean squared difference of probabilities.
    * js: Jensen-Shannon divergence.
    * kl: divergence in both directions; no gradient reaches `high`, so the lower resolution learns from the higher.
    """
    if kind == "mse":
        return (low.exp() - high.exp()).square().mean(-1)
    if kind == "kl":
        return _symmetric(low, high.detach())
    middle = ((low.exp() + high.exp()) / 2).clamp(min=torch.finfo(low.dtype).tiny).log()
    return (_divergence(low, middle) + _divergence(high, middle)) / 2


def _divergence(one: Tensor, other: Tensor) -> Tensor:
    return (one.exp() * (one - other)).sum(-1)


def _symmetric(one: Tensor, other: Tensor) -> Tensor:
    return _divergence(one, other) + _divergence(other, one)


def disagreement(scale_logits: Tensor, kind: Distance = "mse", pairs: Pairs = "all") -> Tensor:
    """Return the mean distance of the pairs of resolutions at each slot: [B, N]; an exact 0 with fewer than two.

    Args:
        scale_logits: [B, R, N, C], resolutions ascending; half precision is widened.
        kind: the distance.
        pairs: 'all' R (R - 1) / 2 pairs, or the R - 1 'adjacent' ones.

    Source: the sum over pairs of a mean squared error is the common form; the rest is a [reading].
    """
    logits = scale_logits.float() if scale_logits.dtype in (torch.float16, torch.bfloat16) else scale_logits
    scales = range(logits.shape[1])
    chosen = list(combinations(scales, 2) if pairs == "all" else pairwise(scales))
    if not chosen:
        return logits.new_zeros(logits.shape[0], logits.shape[2])
    # What is impossible at both scales has a log-probability of -inf, and -inf minus -inf is no number.
    predicted = logits.log_softmax(-1).clamp(min=math.log(torch.finfo(logits.dtype).tiny)).unbind(1)
    return torch.stack([distance(predicted[low], predicted[high], kind) for low, high in chosen]).mean(0)

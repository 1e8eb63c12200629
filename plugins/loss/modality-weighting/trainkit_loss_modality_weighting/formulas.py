"""Weights of modalities: from priors, from learned log-variances, from pooled features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d

MODALITIES = ("visual", "structural", "geometric", "aesthetic")
PRIORS = {"small": (0.4, 0.4, 0.2, 0.0), "large": (0.35, 0.35, 0.2, 0.1)}
LOG_VARIANCE_LIMIT = 5.0


def renormalised(priors: Tensor, present: Tensor) -> Tensor:
    """Return the priors [M] of the modalities that are present, with a sum of 1, and 0 for the others."""
    kept = priors * present
    return kept / torch.where(kept.sum() > 0, kept.sum(), 1)


def by_uncertainty(priors: Tensor, log_variances: Tensor, present: Tensor) -> Tensor:
    """Return w_i exp(-s_i) / mean(exp(-s)) [M], the mean over the modalities that are present."""
    precision = torch.exp(-log_variances)
    mean = (precision * present).sum() / present.sum().clamp(min=1)
    return renormalised(priors, present) * precision / mean.clamp(min=torch.finfo(precision.dtype).tiny)


def kendall(priors: Tensor, log_variances: Tensor, losses: Tensor) -> Tensor:
    """Return sum of w_i exp(-s_i) L_i + s_i / 2: its minimum is at s_i = ln(2 w_i L_i).

    Source: Kendall, Gal and Cipolla 2018, arXiv 1705.07115 [paper].
    """
    return (priors * torch.exp(-log_variances) * losses + 0.5 * log_variances).sum()


def describe(visual: Tensor, structural: Tensor, width: int) -> Tensor:
    """Return [B, 2 width + 2]: both features [B, d], and the variance of each over its d values.

    Features of another width than `width` are averaged in neighbouring groups to it (or repeated) [reading], so that
    the number of weights does not depend on the model. Half precision is widened.
    """
    visual, structural = visual.float(), structural.float()
    pooled = [adaptive_avg_pool1d(features.unsqueeze(1), width).squeeze(1) for features in (visual, structural)]
    variances = [features.var(dim=-1, correction=0, keepdim=True) for features in (visual, structural)]
    return torch.cat([*pooled, *variances], dim=-1)


class Predictor(nn.Module):
    """Predict the weights of modalities from pooled features. Untrained, it answers with the priors [reading].

    Args:
        width: number of values that each feature is pooled to.
        hidden: width of the hidden layer.
    """

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(2 * width + 2, hidden), nn.GELU(), nn.Linear(hidden, len(MODALITIES)))
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, visual: Tensor, structural: Tensor, priors: Tensor, present: Tensor) -> Tensor:
        """Return weights [M]: the mean over samples of a softmax over what is present, starting at the priors."""
        scores = self.layers(describe(visual, structural, self.width)) + renormalised(priors, present).log()
        return scores.softmax(-1).mean(0)


def barrier(weights: Tensor) -> Tensor:
    """Return -sum of log w over the weights that are not 0: it grows without bound as one of them vanishes."""
    return -torch.where(weights > 0, weights, 1).log().sum()

"""Focal loss: cross-entropy in which what is predicted well already counts less."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from trainkit import LossOutput

IGNORED_LABEL = -100


def focal(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Return (1 - p)^gamma * -log p of every position, with p the probability of its label, in nats.

    Args:
        logits: [..., V]; half precision is widened to float32.
        labels: [...] class indices; -100 is ignored and costs 0.
        gamma: 0 gives cross-entropy; the larger, the less easy positions count.

    Source: Lin et al. 2017, arXiv 1708.02002 [paper], for several classes and without its class weights.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none", ignore_index=IGNORED_LABEL)
    # 1 - p loses all digits where p is near 1; expm1 keeps them.
    return ((-(-losses).expm1()) ** gamma * losses).reshape(labels.shape)


class FocalLoss(nn.Module):
    """Measure how well tokens are predicted, with those that are easy counting less.

    Args:
        gamma: 0 gives cross-entropy; the larger, the less easy tokens count.
    """

    def __init__(self, gamma: Annotated[float, Field(ge=0)] = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> LossOutput:
        """Return the loss of logits [B, ..., V] for labels [B, ...]."""
        losses = focal(logits, labels, self.gamma)
        real = (labels != IGNORED_LABEL).reshape(len(labels), -1).sum(1)
        per_sample = losses.detach().reshape(len(labels), -1).sum(1) / real.clamp(min=1)
        return LossOutput(losses.sum(), real.sum(), per_sample=per_sample)

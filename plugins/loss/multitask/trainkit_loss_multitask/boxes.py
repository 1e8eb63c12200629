"""Boxes (centre x, centre y, width, height, as shares of the page): how much they overlap, and how far they are off."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

BoxLoss = Literal["l1+giou", "l1+iou", "mse"]
TINY = 1e-9


def corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the upper left and the lower right corner [..., 2] of boxes [..., 4]."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return centre - half, centre + half


def _areas(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the areas of intersection, union and common hull of boxes that broadcast."""
    (low, high), (other_low, other_high) = corners(one), corners(other)
    common = torch.minimum(high, other_high) - torch.maximum(low, other_low)
    shared = common.clamp(min=0).prod(-1)
    union = one[..., 2:].prod(-1) + other[..., 2:].prod(-1) - shared
    hull = (torch.maximum(high, other_high) - torch.minimum(low, other_low)).prod(-1)
    return shared, union, hull


def iou(one: Tensor, other: Tensor) -> Tensor:
    """Return the intersection over union [...] of boxes [..., 4] that broadcast: in [0, 1]."""
    shared, union, _ = _areas(one, other)
    return shared / union.clamp(min=TINY)


def generalised_iou(one: Tensor, other: Tensor) -> Tensor:
    """Return the generalised IoU [...] in [-1, 1]: it also tells how far apart two boxes are that do not meet.

    Source: Rezatofighi et al. 2019, arXiv 1902.09630 [paper].
    """
    shared, union, hull = _areas(one, other)
    return shared / union.clamp(min=TINY) - (hull - union) / hull.clamp(min=TINY)


def box_losses(predictions: Tensor, boxes: Tensor, real: Tensor, kind: BoxLoss) -> Tensor:
    """Return the mean loss of the real boxes of each sample: [B]; 0 for a sample without any.

    'mse' is the mean square over the four numbers; the others are the mean absolute difference plus 1 - (G)IoU.

    Args:
        predictions: [B, N, 4].
        boxes: [B, N, 4].
        real: [B, N] bool, the slots that have a box.
        kind: what is measured.
    """
    # Outside of the real slots the target may be anything, NaN included.
    targets = torch.where(real.unsqueeze(-1), boxes, predictions.detach())
    difference = predictions - targets
    if kind == "mse":
        losses = difference.square().mean(-1)
    else:
        overlap = generalised_iou if kind == "l1+giou" else iou
        losses = difference.abs().mean(-1) + 1 - overlap(predictions, targets)
    return torch.where(real, losses, 0.0).sum(1) / real.sum(1).clamp(min=1)

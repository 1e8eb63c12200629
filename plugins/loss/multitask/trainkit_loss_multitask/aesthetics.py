"""How well a predicted layout looks: elements that overlap, and edges that nearly but not quite align."""

from __future__ import annotations

import torch
from torch import Tensor

from .boxes import corners, iou

ALLOWED_IOU = 0.1
SOFTNESS = 0.01


def ancestors(parents: Tensor) -> Tensor:
    """Return [B, N, N] bool: whether slot j is an ancestor of slot i, from parents [B, N] (-1: none).

    The loop runs over the levels of the tree, not over its nodes, and ends also where parents form a circle.
    """
    batch, slots = parents.shape
    # One column more takes what is written for slots that have run out of ancestors.
    found = torch.zeros(batch, slots, slots + 1, dtype=torch.bool, device=parents.device)
    current = parents
    for _ in range(slots):
        if not bool((current >= 0).any()):
            break
        found.scatter_(2, torch.where(current >= 0, current, slots).unsqueeze(-1), value=True)
        current = torch.where(current >= 0, parents.gather(1, current.clamp(min=0)), -1)
    return found[..., :slots]


def overlap(boxes: Tensor, pairs: Tensor) -> Tensor:
    """Return the mean over pairs of relu(IoU - 0.1): [B] from boxes [B, N, 4] and pairs [B, N, N] bool."""
    excess = (iou(boxes.unsqueeze(2), boxes.unsqueeze(1)) - ALLOWED_IOU).clamp(min=0)
    return torch.where(pairs, excess, 0.0).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def alignment(boxes: Tensor, real: Tensor, softness: float = SOFTNESS) -> Tensor:
    """Return the mean over elements of -ln(1 - d): [B], d the distance to the best aligned edge of another element.

    The distance is the least of left, centre x, right, top, centre y, bottom over all other elements; to have a
    gradient everywhere it is the mean of all, weighed by softmax(-distance / softness) [reading], never less than the
    least. An element that is alone has none and costs 0.

    Args:
        boxes: [B, N, 4].
        real: [B, N] bool, the slots that have a box.
        softness: temperature of the minimum; towards 0 the value is that of the metric.

    Source: LayoutGAN++, arXiv 2108.00871, and arXiv 2009.05284 [paper].
    """
    low, high = corners(boxes)
    lines = torch.cat([low, boxes[..., :2], high], dim=-1)
    distances = (lines.unsqueeze(2) - lines.unsqueeze(1)).abs().clamp(max=1 - 1e-6)
    others = real.unsqueeze(1) & real.unsqueeze(2) & ~torch.eye(len(real[0]), dtype=torch.bool, device=real.device)
    scores = torch.where(others.unsqueeze(-1), -distances / softness, float("-inf")).flatten(2)
    has_other = others.any(-1)
    shares = torch.where(has_other.unsqueeze(-1), scores, 0.0).softmax(-1)
    nearest = (shares * distances.flatten(2)).sum(-1)
    costs = torch.where(has_other, -torch.log1p(-nearest), 0.0)
    return costs.sum(1) / real.sum(1).clamp(min=1)


def aesthetic_losses(
    predictions: Tensor, real: Tensor, parents: Tensor | None = None, mask_rate: Tensor | None = None
) -> Tensor:
    """Return overlap plus alignment of each sample's predicted boxes: [B].

    Empty slots take no part. An element and its ancestors always overlap, and are no pair. With `mask_rate` a sample
    counts by the share of its slots that was visible, alpha-bar at its time: looks matter where little is hidden
    [LACE, arXiv 2402.04754: the weight; the two costs here are simpler].

    Args:
        predictions: [B, N, 4] in [0, 1].
        real: [B, N] bool, the slots that have a box.
        parents: [B, N] slot of the parent, -1 for roots.
        mask_rate: [B].
    """
    # Pages have far fewer boxes than slots, and the cost grows with the square: only as many as the fullest page has.
    most = int(real.sum(1).max()) if real.numel() else 0
    places = real.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    kept, there = predictions.gather(1, places.unsqueeze(-1).expand(-1, -1, 4)), real.gather(1, places)
    pairs = there.unsqueeze(1) & there.unsqueeze(2) & ~torch.eye(most, dtype=torch.bool, device=real.device)
    if parents is not None:
        above = ancestors(parents).gather(1, places.unsqueeze(-1).expand(-1, -1, parents.shape[1]))
        above = above.gather(2, places.unsqueeze(1).expand(-1, most, -1))
        pairs = pairs & ~(above | above.transpose(1, 2))
    costs = overlap(kept, pairs) + alignment(kept, there)
    return costs if mask_rate is None else costs * (1 - mask_rate)

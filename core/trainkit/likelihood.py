"""Likelihoods of classes, and of classes and pointers where some are impossible, for losses and metrics to share."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from .contracts import IGNORED_LABEL
from .rowlosses import row_losses

IMPOSSIBLE = -1e4  # the logit of what cannot be; anything beyond half of it counts as that, as bf16 rounds it


def slot_weights(labels: Tensor, pad_id: int, pad_weight: float) -> Tensor:
    """Return what each slot counts: [...] 1 for an element, `pad_weight` for an empty slot, 0 for what is none."""
    weights = (labels != IGNORED_LABEL).float()
    return weights if pad_weight == 1 else weights.masked_fill(labels == pad_id, pad_weight)


def widened(logits: Tensor) -> Tensor:
    """Return logits of half precision in float32, others as they are."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def label_costs(logits: Tensor, labels: Tensor, reader: str) -> tuple[Tensor, Tensor]:
    """Return the plain negative log-likelihood of each label in nats, in float64, and whether it is real.

    Args:
        logits: [..., V]; half precision is widened to float32.
        labels: [...] class indices; -100 is not real and costs 0.
        reader: who wants them, for the message.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits have the shape {list(logits.shape)}, labels {list(labels.shape)}: "
            f"{reader} wants logits [..., V] at the positions of the labels"
        )
    _, costs = row_losses(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), 0.0)
    return costs.double().view_as(labels), labels != IGNORED_LABEL


def perplexity_of(nats: float) -> float:
    """Return exp of the mean negative log-likelihood; infinity where that is beyond what a number can hold."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def class_losses(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the smoothed loss and the plain negative log-likelihood of each position, in nats.

    With e the smoothing the target is (1 - e) onehot + e / V over the V classes that are possible there: those with a
    logit above -5000. Where all are possible that is label smoothing as usual [paper]; the rest is a [reading].

    Args:
        logits: [..., V]; half precision is widened to float32.
        labels: [...] class indices; -100 is ignored and costs 0.
        label_smoothing: e in [0, 1).

    Returns:
        Two tensors shaped like `labels`.

    Source: Szegedy et al. 2015, arXiv 1512.00567.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(f"logits {list(logits.shape)} do not have the shape of labels {list(labels.shape)} + [V]")
    logits = widened(logits)
    log_probabilities = logits.log_softmax(-1)
    classes, targets = log_probabilities.flatten(0, -2), labels.flatten()
    likelihood = functional.nll_loss(classes, targets, ignore_index=IGNORED_LABEL, reduction="none").view_as(labels)
    if not label_smoothing:
        return likelihood, likelihood
    possible = logits > IMPOSSIBLE / 2
    spread = -log_probabilities.masked_fill(~possible, 0.0).sum(-1) / possible.sum(-1).clamp(min=1)
    return torch.lerp(likelihood, spread.masked_fill(labels == IGNORED_LABEL, 0.0), label_smoothing), likelihood


def pointer_losses(
    pointer_logits: Tensor,
    sources: Tensor,
    struct_mask: Tensor | None = None,
    label_smoothing: float = 0.0,
    *,
    joint: bool = False,
) -> Tensor:
    """Return the loss of each slot's pointers [B, N]: the mean over its K_n sources and STOP, 0 where it has none.

    Args:
        pointer_logits: [B, N, K, S+1]; the last class is STOP.
        sources: [B, N, K]; -100 after STOP and in slots that have no pointers.
        struct_mask: [B, S], the nodes that exist; no other can be pointed to.
        label_smoothing: share of the target spread over the pointers that are possible.
        joint: sum over the pointers instead of their mean: the exact likelihood of the chain.

    Source: 3.3 of the algorithm reference [reading].
    """
    if struct_mask is not None:
        stop = torch.ones_like(struct_mask[:, :1])
        absent = ~torch.cat([struct_mask, stop], dim=1)[:, None, None, :]
        pointer_logits = widened(pointer_logits).masked_fill(absent, IMPOSSIBLE)
    losses, _ = class_losses(pointer_logits, sources, label_smoothing)
    total = losses.sum(-1)
    return total if joint else total / (sources != IGNORED_LABEL).sum(-1).clamp(min=1)


def per_sample_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Return the detached sum of each sample's losses over the sum of its weights: [B] from two of [B, ...]."""
    total = weights.flatten(1).sum(1)
    return losses.detach().flatten(1).sum(1) / total.masked_fill(total == 0, 1.0)

"""Which samples a model knows: by the probability of what is true, or by losses among those before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from trainkit.contracts import Batch

REMEMBERED = 1024


def true_probability(logits: Tensor, labels: Tensor, only: Tensor | None = None) -> Tensor:
    """Return [B] the mean probability of the true classes of each sample; 1 for a sample without any.

    Args:
        logits: [B, ..., V].
        labels: [B, ...], below 0 where there is no class.
        only: [B, ...] bool: the positions that count, as the hidden ones of a masked model; None for all.
    """
    true = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1).exp()
    real = _real(labels, only)
    count = real.sum(1)
    mean = (true.reshape(real.shape) * real).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean, 1.0)


def wrong_somewhere(logits: Tensor, labels: Tensor, only: Tensor | None = None) -> Tensor:
    """Return [B] bool: which samples have a position whose likeliest class is not the true one; see above."""
    wrong = (logits.argmax(-1) != labels).reshape(len(labels), -1)
    return (wrong & _real(labels, only)).any(1)


def _real(labels: Tensor, only: Tensor | None) -> Tensor:
    real = labels >= 0
    if only is not None and only.shape == real.shape:
        real = real & only
    return real.reshape(len(labels), -1)


def above_quantile(losses: Tensor, before: Sequence[float], tau: float) -> tuple[Tensor, list[float]]:
    """Return [B] bool, which losses are at or above the tau-quantile of the last ones, theirs included; and these.

    Args:
        losses: [B] of a batch.
        before: earlier ones; at most 1,024 are remembered.
        tau: share that lies below.
    """
    remembered = [*before, *losses.tolist()][-REMEMBERED:]
    bar = torch.quantile(torch.tensor(remembered, dtype=torch.float64), tau)
    return losses.double() >= bar.to(losses.device), remembered


def rows(batch: Batch, keep: Tensor) -> dict[str, Any]:
    """Return the samples of a batch at these places; what is no tensor is the same for all."""
    return {name: v.index_select(0, keep) if isinstance(v, Tensor) else v for name, v in batch.items()}

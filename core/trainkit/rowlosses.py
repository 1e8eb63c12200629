"""Likelihoods of classes and their gradient, a chunk of rows at a time: no wide copy of all logits is ever made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .contracts import IGNORED_LABEL

# As much as stays in a processor's cache; on an accelerator, as much as keeps it busy.
CPU_ELEMENTS, ACCELERATOR_ELEMENTS = 2**18, 2**25


def row_losses(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return the smoothed loss and the plain negative log-likelihood of each row [N] in nats; 0 where it is ignored.

    The likelihood has no gradient of its own.

    Args:
        logits: [N, V], of any precision; half precision is widened to float32.
        targets: [N] class indices; -100 is ignored.
        smoothing: e in [0, 1).
    """
    return (plain if logits.numel() <= _elements(logits) else chunked)(logits, targets, smoothing)


def plain(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return `row_losses` by PyTorch's own operations, which have gradients of any order and are fast for few."""
    wide = logits.to(_precision(logits))
    if not smoothing:
        losses = functional.cross_entropy(wide, targets, reduction="none")
        return losses, losses.detach()
    logs = wide.log_softmax(1)
    likelihood = functional.nll_loss(logs, targets, reduction="none")
    spread = -logs.mean(1).masked_fill(targets == IGNORED_LABEL, 0.0)
    return torch.lerp(likelihood, spread, smoothing), likelihood.detach()


def chunked(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return `row_losses` chunk by chunk.

    Forward keeps two numbers a row beside the logits, and backward makes the gradient in the precision of the logits:
    PyTorch's way takes three copies of them in float32.

    Source: to make the gradient of a large vocabulary in chunks is that of Hsu et al. 2024, arXiv 2410.10989; here the
    softmax is computed once more in backward and nothing is kept [ours].
    """
    losses, likelihood = _Chunked.apply(logits, targets, smoothing)  # type: ignore[no-untyped-call]
    return losses, likelihood


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        real, rows = _real(targets)
        highest = logits.new_empty(len(logits), dtype=_precision(logits))
        total, mean = torch.empty_like(highest), torch.zeros_like(highest)
        for part in _chunks(logits):
            wide = logits[part].to(highest.dtype, copy=True)
            highest[part] = wide.amax(1)
            if smoothing:
                mean[part] = wide.mean(1)
            total[part] = wide.sub_(highest[part, None]).exp_().sum(1)
        # Differences to the highest logit first: what is nearly certain has a loss far below the rounding of logits.
        likelihood = (highest - logits.gather(1, rows).squeeze(1)) + total.log()
        likelihood = likelihood.masked_fill_(~real, 0.0)
        spread = ((highest - mean) + total.log()).masked_fill_(~real, 0.0)
        losses = torch.lerp(likelihood, spread, smoothing) if smoothing else likelihood.clone()
        ctx.save_for_backward(logits, targets, highest, total)
        ctx.smoothing = smoothing
        ctx.mark_non_differentiable(likelihood)
        return losses, likelihood

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, highest, total = ctx.saved_tensors
        smoothing, classes = ctx.smoothing, logits.shape[1]
        if torch.is_grad_enabled():
            # Somebody wants gradients of gradients.
            losses, _ = plain(logits, targets, smoothing)
            return torch.autograd.grad(losses, logits, grad, create_graph=True)[0], None, None
        real, rows = _real(targets)
        grad = grad.masked_fill(~real, 0.0).unsqueeze(1)
        found = torch.empty_like(logits)
        for part in _chunks(logits):
            surplus = logits[part].to(highest.dtype, copy=True).sub_(highest[part, None]).exp_().div_(total[part, None])
            if smoothing:
                surplus.sub_(smoothing / classes)
            surplus.scatter_add_(1, rows[part], surplus.new_full(rows[part].shape, smoothing - 1))
            found[part] = surplus.mul_(grad[part])
        return found, None, None


def _real(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows are real, and the class of each [N, 1], some class where it is not."""
    real = targets != IGNORED_LABEL
    return real, targets.masked_fill(~real, 0).unsqueeze(1)


def _precision(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _elements(logits: Tensor) -> int:
    return CPU_ELEMENTS if logits.device.type == "cpu" else ACCELERATOR_ELEMENTS


def _chunks(logits: Tensor) -> Iterator[slice]:
    rows = max(1, _elements(logits) // logits.shape[1])
    for first in range(0, len(logits), rows):
        yield slice(first, first + rows)

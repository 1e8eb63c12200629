"""Interpretable multi-head attention: one value for all heads, so that their mean weights say what was looked at."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .gates import glorot

# Scores of a block. On a CPU about a MiB, so that they stay in its caches; elsewhere 256 MiB, as there it is memory
# alone that counts.
BLOCK, LARGE_BLOCK = 1 << 18, 1 << 26


def horizon_mask(horizon: int, length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores [horizon, length]: -inf where a horizon position would look ahead.

    A position sees the whole past and itself and the earlier positions of the horizon; so no row is -inf throughout.
    """
    ahead = torch.ones(horizon, length, dtype=torch.bool, device=device).triu(length - horizon + 1)
    return torch.zeros(horizon, length, device=device, dtype=dtype).masked_fill_(ahead, -math.inf)


def mean_weights(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """Return the attention weights [B, Q, K], the mean over heads, of query [B, h, d, Q] and key [B, h, d, K]."""
    return torch.softmax(query.transpose(2, 3) @ key + mask, -1).mean(1)


def attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over heads of what they attend to, [B, Q, e].

    The weights of all heads are made for a few samples at a time, and again in the backward pass: as every head has
    the same value, their mean is all that is multiplied by it.

    Args:
        query: [B, h, d, Q], scaled.
        key: [B, h, d, K].
        value: [B, e, K].
        mask: [Q, K], added to the scores.
    """
    out: Tensor = _Attention.apply(query, key, value, mask)  # type: ignore[no-untyped-call]
    return out


class _Weights:
    """Compute the weights of a few samples into buffers that all blocks share."""

    def __init__(self, query: Tensor, key: Tensor, mask: Tensor) -> None:
        samples, self.heads, _, steps = query.shape
        length = key.shape[-1]
        self.mask, self.query, self.key = mask, query, key
        most = BLOCK if query.device.type == "cpu" else LARGE_BLOCK
        self.size = min(max(1, most // (self.heads * steps * length)), samples)
        self.scores, self.weights = (query.new_empty(self.size * self.heads, steps, length) for _ in range(2))
        self.total = query.new_empty(self.size, steps, length)

    def blocks(self) -> list[slice]:
        """Return the samples of each block."""
        count = len(self.query)
        return [slice(first, min(count, first + self.size)) for first in range(0, count, self.size)]

    def compute(self, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return of n samples query, key, the weights [n, h, Q, K], their sum over heads, and a buffer [n h, Q, K]."""
        query, key = (x[rows].flatten(0, 1) for x in (self.query, self.key))
        scores, weights = self.scores[: len(query)], self.weights[: len(query)]
        torch.baddbmm(self.mask, query.transpose(1, 2), key, out=scores)
        torch.softmax(scores, -1, out=weights)
        by_head = weights.unflatten(0, (-1, self.heads))
        return query, key, by_head, torch.sum(by_head, 1, out=self.total[: len(by_head)]), scores


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        blocks = _Weights(query, key, mask)
        out = value.new_empty(query.shape[0], query.shape[3], value.shape[1])
        share = (value / blocks.heads).transpose(1, 2)
        for rows in blocks.blocks():
            _, _, _, total, _ = blocks.compute(rows)
            torch.bmm(total, share[rows], out=out[rows])
        ctx.save_for_backward(query, key, value, mask)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask = ctx.saved_tensors
        if torch.is_grad_enabled():
            # Somebody wants gradients of gradients: a path of PyTorch's own operations has them.
            out = mean_weights(query, key, mask) @ value.transpose(1, 2)
            return (*torch.autograd.grad(out, (query, key, value), grad, create_graph=True), None)
        blocks = _Weights(query, key, mask)
        d_query, d_key, d_value = (torch.empty_like(x) for x in (query, key, value))
        grad = grad / blocks.heads
        # In these products the thin side comes first: the fast way on a CPU.
        for rows in blocks.blocks():
            q, k, weights, total, d_scores = blocks.compute(rows)
            torch.bmm(grad[rows].transpose(1, 2), total, out=d_value[rows])
            # All heads share the gradient of their mean weights.
            d_weights = torch.bmm(grad[rows], value[rows], out=total)
            by_head = d_scores.unflatten(0, (-1, blocks.heads))
            torch.mul(weights, d_weights[:, None], out=by_head)
            by_head.addcmul_(weights, by_head.sum(-1, keepdim=True), value=-1)
            torch.bmm(k, d_scores.transpose(1, 2), out=d_query[rows].flatten(0, 1))
            torch.bmm(q, d_scores, out=d_key[rows].flatten(0, 1))
        return d_query, d_key, d_value, None


def by_sample(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return a Linear of time-major x [L, B, w] as [B, features, L], the order of the products to come."""
    return torch.baddbmm(bias[:, None], weight.expand(x.shape[1], -1, -1), x.permute(1, 2, 0))


class InterpretableAttention(nn.Module):
    """Look from each horizon position at the past and at what came before it in the horizon.

    Args:
        width: features of a position; a multiple of the heads.
        heads: attention heads, each with its own queries and keys; the value is one for all.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, self.head_width), nn.Linear(self.head_width, width, bias=False)
        glorot(self.query, self.key, self.value, self.out)

    def forward(self, x: Tensor, horizon: int, weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return [horizon, B, width] of time-major x [L, B, width], and the mean weights [B, horizon, L] if wanted."""
        length = x.shape[0]
        scale = self.head_width**-0.5
        query = by_sample(x[length - horizon :], self.query.weight * scale, self.query.bias * scale)
        weight, bias = torch.cat([self.key.weight, self.value.weight]), torch.cat([self.key.bias, self.value.bias])
        key, value = by_sample(x, weight, bias).split([self.heads * self.head_width, self.head_width], dim=1)
        query, key = (y.unflatten(1, (self.heads, self.head_width)) for y in (query, key))
        mask = horizon_mask(horizon, length, x.device, query.dtype)
        seen = mean_weights(query, key, mask) if weights else None
        mixed = attended(query, key, value, mask) if seen is None else seen @ value.transpose(1, 2)
        return self.out(mixed.transpose(0, 1)), seen

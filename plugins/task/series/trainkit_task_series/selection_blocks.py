"""The networks of all variables and their weighted sum, for a block of rows at a time.

Written out, the layers between a few numbers a row and the sum are twenty times as large as both. In blocks they stay
in the cache, and none is kept for the backward pass, which computes them again: less memory, and faster.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-5
# Numbers in a layer of a block. On a CPU a MiB, so that a few layers stay in its caches; elsewhere 256 MiB, as there it
# is memory alone that counts.
BLOCK, LARGE_BLOCK = 1 << 18, 1 << 26
Kept = tuple[Tensor, float]


class VariableWeights(NamedTuple):
    """Hold the layers of the variables' gated residual networks behind their first: [V, d, d] and [V, d]."""

    middle: Tensor
    middle_bias: Tensor
    value: Tensor
    value_bias: Tensor
    gate: Tensor
    gate_bias: Tensor
    norm: Tensor
    norm_bias: Tensor


def combined(entered: Tensor, skip: Tensor, weights: Tensor, own: VariableWeights, keep: Kept | None) -> Tensor:
    """Return sum_j w_j LayerNorm_j(skip_j + gate_j(W1_j ELU(entered_j) + b1_j)), [N, d].

    Args:
        entered: [V, N, d] what the first layer answers.
        skip: [V, N, d].
        weights: [N, V].
        own: the other layers.
        keep: what dropout keeps of the gates' inputs, int8 [V, N, d], and the share that is kept; None for all.
    """
    middle = torch.baddbmm(own.middle_bias[:, None], F.elu(entered), own.middle)
    if keep is not None:
        middle = middle * (keep[0].to(middle.dtype) / keep[1])
    value = torch.baddbmm(own.value_bias[:, None], middle, own.value)
    gate = torch.baddbmm(own.gate_bias[:, None], middle, own.gate)
    normed = F.layer_norm(skip + value * gate.sigmoid(), skip.shape[-1:], eps=EPSILON)
    each = normed * own.norm[:, None] + own.norm_bias[:, None]
    return (each * weights.t()[:, :, None]).sum(0)


def combined_in_blocks(
    lines: Tensor, entering: Tensor, embedding: Tensor, weights: Tensor, own: VariableWeights, keep: Kept | None
) -> Tensor:
    """Return `combined` of lines: entered_j = v_j entering_j0 + entering_j1, skip_j alike of the embedding.

    Computed in the precision of the parameters, also under autocast. No gradient reaches the lines.

    Args:
        lines: [V, 2, N] the values and ones.
        entering: [V, 2, d].
        embedding: [V, 2, d].
        weights: [N, V].
        own: the other layers.
        keep: as `combined` has it.
    """
    kept, share = keep if keep is not None else (None, 1.0)
    with torch.autocast(lines.device.type, enabled=False):
        entering = entering.to(own.norm.dtype)
        out: Tensor = _Blocks.apply(lines, kept, share, entering, embedding, weights, *own)  # type: ignore[no-untyped-call]
        return out


class _Layers:
    """Compute the layers of a block into buffers that all blocks share."""

    def __init__(
        self, lines: Tensor, kept: Tensor | None, share: float, entering: Tensor, skip: Tensor, own: VariableWeights
    ) -> None:
        self.lines, self.kept, self.entering, self.skip, self.own = lines, kept, entering, skip, own
        # What is kept is scaled in the weights, which are fewer.
        self.value, self.gate, self.share = own.value / share, own.gate / share, share
        variables, width = own.norm.shape
        most = BLOCK if lines.device.type == "cpu" else LARGE_BLOCK
        self.step = min(max(1, most // (variables * width)), lines.shape[2])
        self.buffers = [own.norm.new_empty(variables * self.step * width) for _ in range(7)]

    def blocks(self) -> list[slice]:
        """Return the rows of each block."""
        count = self.lines.shape[2]
        return [slice(first, min(count, first + self.step)) for first in range(0, count, self.step)]

    def buffer(self, number: int, rows: slice) -> Tensor:
        """Return a buffer as [V, rows, d]."""
        variables, width = self.own.norm.shape
        length = rows.stop - rows.start
        return self.buffers[number][: variables * length * width].view(variables, length, width)

    def compute(self, rows: slice) -> None:
        """Fill the attributes `bent`, `middle`, `keep`, `value_out`, `open`, `centred` and `spread` for these rows."""
        own = self.own
        self.bent, self.middle, self.value_out, self.open, self.centred = (self.buffer(i, rows) for i in range(5))
        line = self.lines[:, :, rows].transpose(1, 2)
        torch.bmm(line, self.entering, out=self.centred)
        # ELU is max(x, exp(min(x, 0)) - 1), and its derivative min(ELU, 0) + 1. PyTorch's sigmoid is faster than its
        # exp, and exp = sigmoid / (1 - sigmoid) loses nothing where x is not positive.
        torch.clamp(self.centred, max=0, out=self.bent).sigmoid_()
        self.bent.div_(torch.sub(1, self.bent, out=self.middle)).sub_(1)
        torch.maximum(self.bent, self.centred, out=self.bent)
        torch.baddbmm(own.middle_bias[:, None], self.bent, own.middle, out=self.middle)
        if self.kept is not None:
            self.keep = self.buffer(5, rows).copy_(self.kept[:, rows])
            self.middle.mul_(self.keep)
        torch.baddbmm(own.value_bias[:, None], self.middle, self.value, out=self.value_out)
        torch.baddbmm(own.gate_bias[:, None], self.middle, self.gate, out=self.open).sigmoid_()
        torch.mul(self.value_out, self.open, out=self.centred)
        self.centred.baddbmm_(line, self.skip)
        self.centred.sub_(self.centred.mean(-1, keepdim=True))
        variance = torch.mul(self.centred, self.centred, out=self.buffer(6, rows)).mean(-1, keepdim=True)
        self.spread = variance.add_(EPSILON).rsqrt_()


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, lines: Tensor, kept: Tensor | None, share: float, entering: Tensor, skip: Tensor, weights: Tensor,
        *own_tensors: Tensor,
    ) -> Tensor:  # fmt: skip
        own = VariableWeights(*own_tensors)
        layers = _Layers(lines, kept, share, entering, skip, own)
        out = weights @ own.norm_bias
        by_variable = weights.t()[:, :, None]
        for rows in layers.blocks():
            layers.compute(rows)
            layers.centred.mul_(layers.spread.mul_(by_variable[:, rows])).mul_(own.norm[:, None])
            out[rows] += layers.centred.sum(0)
        ctx.share = share
        ctx.save_for_backward(lines, kept, entering, skip, weights, *own)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        lines, kept, entering, skip, weights, *own_tensors = ctx.saved_tensors
        own = VariableWeights(*own_tensors)
        if torch.is_grad_enabled():
            # Somebody wants gradients of gradients: a path of PyTorch's own operations has them.
            values = lines.transpose(1, 2)
            out = combined(values @ entering, values @ skip, weights, own, kept if kept is None else (kept, ctx.share))
            inputs = (entering, skip, weights, *own)
            return (None, None, None, *torch.autograd.grad(out, inputs, grad, create_graph=True))
        layers = _Layers(lines, kept, ctx.share, entering, skip, own)
        return (None, None, None, *_gradients(layers, weights, grad.contiguous()))


def _gradients(layers: _Layers, weights: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of entering, skip, weights and the layers."""
    own, width = layers.own, grad.shape[1]
    d_own = VariableWeights(*(torch.zeros_like(tensor) for tensor in own))
    d_entering, d_skip = torch.zeros_like(layers.entering), torch.zeros_like(layers.skip)
    # grad . norm_bias_j is what a weight earns by the bias alone; the rest is added below.
    d_weights = torch.mm(own.norm_bias, grad.t())
    mean_q = torch.mm(own.norm, grad.t()).div_(width)[:, :, None]
    by_variable = weights.t()[:, :, None]
    value_back, gate_back, middle_back = (w.transpose(1, 2) for w in (layers.value, layers.gate, own.middle))
    for rows in layers.blocks():
        layers.compute(rows)
        line, spread = layers.lines[:, :, rows], layers.spread
        scale = spread * by_variable[:, rows]
        # The layer norm: with q = norm grad and z the centred sum of which it is the norm,
        # dz = scale (q - mean q - z spread^2 mean(z q)).
        d_sum, q = layers.buffer(6, rows), grad[None, rows]
        torch.mul(layers.centred, q, out=d_sum)
        d_own.norm[:, None].baddbmm_(scale.transpose(1, 2), d_sum)
        product = d_sum.mul_(own.norm[:, None]).sum(-1, keepdim=True)
        d_weights[:, rows] += (product * spread)[..., 0]
        product.mul_(spread).mul_(spread).div_(width)
        torch.mul(q, own.norm[:, None], out=d_sum).sub_(mean_q[:, rows])
        d_sum.addcmul_(layers.centred, product, value=-1).mul_(scale)
        d_skip.baddbmm_(line, d_sum)
        # The gate: sum = value * open.
        d_value, d_gate = layers.centred, layers.value_out
        torch.mul(d_sum, layers.open, out=d_value)
        torch.addcmul(layers.value_out, layers.value_out, layers.open, value=-1, out=d_gate).mul_(d_value)
        back = layers.middle.transpose(1, 2)
        d_own.value.baddbmm_(back, d_value)
        d_own.gate.baddbmm_(back, d_gate)
        d_own.value_bias.add_(d_value.sum(1))
        d_own.gate_bias.add_(d_gate.sum(1))
        d_middle = torch.bmm(d_value, value_back, out=layers.open).baddbmm_(d_gate, gate_back)
        if layers.kept is not None:
            d_middle.mul_(layers.keep)
        d_own.middle.baddbmm_(layers.bent.transpose(1, 2), d_middle)
        d_own.middle_bias.add_(d_middle.sum(1))
        d_bent = torch.bmm(d_middle, middle_back, out=layers.middle)
        d_bent.mul_(layers.bent.clamp_(max=0).add_(1))
        d_entering.baddbmm_(line, d_bent)
    d_own.value.div_(layers.share)
    d_own.gate.div_(layers.share)
    d_own.norm_bias.copy_(weights.t() @ grad)
    return d_entering, d_skip, d_weights.t(), *d_own

"""LAMB: the step of Adam, scaled tensor by tensor to the size of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.optim.optimizer import ParamsT
from trainkit.optim import ScaledOptimizer
from trainkit.optim.blocks import AnyBlock
from trainkit.optim.checks import Beta, check_bound
from trainkit.optim.norms import total_norm
from trainkit.optim.ops import Operand, Ops


def lamb(
    p: Tensor,
    g: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    root: Tensor,
    floor: Tensor,
    weight_decay: Tensor,
    scale: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the direction of a step, before it is scaled, and both moments after it.

    With c1 and c2 the bias corrections 1 - beta1^t and 1 - beta2^t, `root` is c1 / sqrt(c2) and `floor` is c1 x eps:
    then m^ / (sqrt(v^) + eps) is m / (root sqrt(v) + floor). `scale` is what clipping leaves of the gradient.
    """
    g = g * scale
    exp_avg = g + beta1 * (exp_avg - g)
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g * g
    return exp_avg / (root * exp_avg_sq.sqrt() + floor) + weight_decay * p, exp_avg, exp_avg_sq


def trust_ratio(weights: Tensor, directions: Tensor, clamp: float | None, trust_clip: bool) -> Tensor:
    """Return by how much the direction of each tensor is scaled; 1 where either norm is 0.

    Args:
        weights: norms of the parameters [tensors].
        directions: norms of the directions [tensors].
        clamp: the largest norm of parameters that counts; None for no bound.
        trust_clip: never scale up.
    """
    counted = weights if clamp is None else weights.clamp(max=clamp)
    ratio = torch.where((weights > 0) & (directions > 0), counted / directions, 1.0)
    return ratio.clamp(max=1.0) if trust_clip else ratio


class LAMB(ScaledOptimizer):
    """Scale the step of Adam, tensor by tensor, to the size of the weights, so that large batches take large rates.

    u = m^ / (sqrt(v^) + eps) + wd p; p <- p - lr r u, with r = min(||p||, clamp) / ||u|| for each tensor, and r = 1
    where a norm is 0. Decay is inside u: it is neither in the moments nor apart from the step, but scaled by r. The
    rate says by which share of its norm a tensor moves; scale it with the square root of the batch. Moments take 8
    bytes per float32 parameter.

    Args:
        params: parameters or parameter groups.
        lr: learning rate: the share of its norm by which a tensor moves in each step.
        betas: decay of the first and of the second moment, per step.
        eps: added to the denominator.
        weight_decay: weight of the parameters inside the direction.
        clamp: the largest norm of a tensor that counts; none for no bound.
        trust_clip: never scale a direction up, only down (LAMBC).
        always_adapt: scale tensors without weight decay too; else they take the step of Adam.
        max_grad_norm: clip the gradients by their global norm first; none leaves that to the training loop.
        maximize: ascend instead of descend.
        compiled: run the step as one compiled kernel (CPU; needs a C++ compiler, once some ten seconds).

    Source: You et al. 2019, arXiv 1904.00962 [paper]; trust_clip: Fong et al. 2020, arXiv 2011.13584 [paper];
    max_grad_norm and always_adapt [impl].
    """

    moments = ("exp_avg", "exp_avg_sq")
    scratches = 0
    formula = staticmethod(lamb)

    def __init__(
        self,
        params: ParamsT,
        lr: PositiveFloat = 1e-3,
        betas: tuple[Beta, Beta] = (0.9, 0.999),
        eps: NonNegativeFloat = 1e-6,
        weight_decay: NonNegativeFloat = 0.01,
        clamp: PositiveFloat | None = 10.0,
        trust_clip: bool = False,
        always_adapt: bool = True,
        max_grad_norm: PositiveFloat | None = None,
        maximize: bool = False,
        compiled: bool = False,
    ) -> None:
        check_bound("LAMB", {"max_grad_norm": max_grad_norm}, "max_grad_norm")
        self.max_grad_norm = max_grad_norm
        self._scale = 1.0
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        adaptation = {"clamp": clamp, "trust_clip": trust_clip, "always_adapt": always_adapt}
        super().__init__(params, defaults | adaptation, maximize=maximize, compiled=compiled)

    def check(self, group: dict[str, Any]) -> None:
        """Raise OptimizerError where a hyper-parameter of a group is out of range."""
        super().check(group)
        check_bound(self.label, group, "clamp")

    def ready(self) -> Iterator[tuple[dict[str, Any], list[AnyBlock]]]:
        """Find how far the gradients have to be clipped before anything moves."""
        if self.max_grad_norm is not None:
            norm = total_norm([p.grad for group in self.param_groups for p in self.with_gradient(group)])
            self._scale = self.max_grad_norm / norm if norm > self.max_grad_norm else 1.0
        return super().ready()

    def coefficients(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        """Return the betas, root and floor of the denominator, the decay, and what clipping leaves of the gradient."""
        beta1, beta2 = group["betas"]
        first, second = 1 - beta1**step, 1 - beta2**step
        return beta1, beta2, first / second**0.5, first * group["eps"], group["weight_decay"], self._scale

    def direction(
        self,
        ops: Ops,
        out: Operand,
        p: Operand,
        g: Operand,
        moments: Sequence[Operand],
        work: Sequence[Operand],
        beta1: float,
        beta2: float,
        root: float,
        floor: float,
        weight_decay: float,
        scale: float,
    ) -> Operand:
        """Move the moments on, then divide."""
        exp_avg, exp_avg_sq = moments
        ops.mul_(exp_avg, beta1)
        ops.add_(exp_avg, g, alpha=(1 - beta1) * scale)
        ops.mul_(exp_avg_sq, beta2)
        ops.addcmul_(exp_avg_sq, g, g, value=(1 - beta2) * scale**2)
        denominator = ops.sqrt(exp_avg_sq, out=out)
        ops.mul_(denominator, root)
        ops.add_(denominator, floor)
        direction = ops.div(exp_avg, denominator, out=out)
        if weight_decay:
            ops.add_(direction, p, alpha=weight_decay)
        return direction

    def lengths(self, group: dict[str, Any], step: int, weights: Tensor, directions: Tensor) -> Tensor:
        """Return the rate times the trust ratio."""
        if not (group["weight_decay"] or group["always_adapt"]):
            return torch.full_like(directions, float(group["lr"]))
        return float(group["lr"]) * trust_ratio(weights, directions, group["clamp"], group["trust_clip"])

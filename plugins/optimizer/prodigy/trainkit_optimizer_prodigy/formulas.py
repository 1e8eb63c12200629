"""The formulas of Prodigy: plain, as tests compare with, and the update of the parameters in place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from trainkit.optim.ops import Operand, Ops

SETTLED = 1e12


def gather(p: Tensor, g: Tensor, p0: Tensor, s: Tensor, keep: float, weight: float) -> tuple[Tensor, Tensor]:
    """Return <g, p0 - p>, and s after a gradient: what the estimate of the distance needs.

    Args:
        p: parameters.
        g: gradient.
        p0: the parameters at their first step.
        s: running sum of gradients.
        keep: share of s that stays.
        weight: of the gradient in s.
    """
    return (g * (p0 - p)).sum(), keep * s + weight * g


def move(
    p: Tensor,
    g: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    lr: float,
    d: float,
    floor: float,
    group: Mapping[str, Any],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return parameters and moments after a step of length lr along Adam's direction for the gradient times d.

    Args:
        p: parameters.
        g: gradient.
        exp_avg: first moment.
        exp_avg_sq: second moment.
        lr: the rate, estimate and bias correction included.
        d: the estimate before this step.
        floor: added to the denominator.
        group: betas and weight decay.
    """
    beta1, beta2 = group["betas"]
    exp_avg = beta1 * exp_avg + (1 - beta1) * d * g
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * (d * g) ** 2
    return p * (1 - lr * group["weight_decay"]) - lr * exp_avg / (exp_avg_sq.sqrt() + floor), exp_avg, exp_avg_sq


def estimated(d: float, largest: float, d0: float, ratio: float, growth_rate: float | None) -> tuple[float, float]:
    """Return the next d and the largest d^ so far.

    Args:
        d: the estimate in force.
        largest: the largest d^ before.
        d0: the first estimate; while it is in force nothing limits its growth.
        ratio: d^.
        growth_rate: largest factor of growth in a step; None for any.
    """
    if d == d0:
        d = max(d, ratio)
    largest = max(largest, ratio)
    return min(largest, d * (math.inf if growth_rate is None else growth_rate)), largest


def move_(
    ops: Ops,
    p: Operand,
    g: Operand,
    moments: Sequence[Operand],
    work: Sequence[Operand],
    lr: float,
    d: float,
    group: Any,
) -> None:
    """Do `move` in place."""
    (beta1, beta2), floor, decay = group["betas"], group["d"] * group["eps"], group["weight_decay"]
    _, _, exp_avg, exp_avg_sq = moments
    scaled = ops.mul(g, d, out=work[0])
    if isinstance(p, Tensor):
        # PyTorch's fused AdamW, told that it has made so many steps that it corrects no bias.
        torch._fused_adamw_(
            [p], [scaled], [exp_avg], [exp_avg_sq], [], [torch.tensor(SETTLED)],
            lr=lr, beta1=beta1, beta2=beta2, weight_decay=decay, eps=floor, amsgrad=False, maximize=False,
        )  # fmt: skip
        return
    ops.lerp_(exp_avg, scaled, 1 - beta1)
    ops.mul_(exp_avg_sq, beta2)
    ops.addcmul_(exp_avg_sq, scaled, scaled, value=1 - beta2)
    divisor = ops.sqrt(exp_avg_sq, out=None)
    ops.add_(divisor, floor)
    if decay:
        ops.mul_(p, 1 - lr * decay)
    ops.addcdiv_(p, exp_avg, divisor, value=-lr)

"""AdamW's step, for optimizers that leave it the parameters that are none of theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .ops import Operand, Ops, TensorOps


def adamw_(
    ops: Ops,
    p: Operand,
    g: Operand,
    moments: Sequence[Operand],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """Update parameters and moments in place by AdamW.

    m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, p <- p (1 - lr wd) - lr m^ / (sqrt(v^) + eps), with ^ the bias
    correction.

    Args:
        ops: operations on what the operands are, one tensor each or a list each.
        p: parameters.
        g: gradients.
        moments: first and second moments.
        lr: learning rate.
        betas: decay of the two moments, per step.
        eps: added to the denominator.
        weight_decay: share of a weight, times lr, that is taken away.
        step: the step, from 1, of the bias correction.

    Source: Loshchilov and Hutter 2017, arXiv 1711.05101 [paper].
    """
    exp_avg, exp_avg_sq = moments
    beta1, beta2 = betas
    if ops is TensorOps:
        # One pass over memory instead of seven.
        torch._fused_adamw_(
            [p],
            [g],
            [exp_avg],
            [exp_avg_sq],
            [],
            [torch.tensor(float(step))],
            lr=lr,
            beta1=beta1,
            beta2=beta2,
            weight_decay=weight_decay,
            eps=eps,
            amsgrad=False,
            maximize=False,
        )
        return
    if weight_decay:
        torch._foreach_mul_(p, 1 - lr * weight_decay)
    torch._foreach_lerp_(exp_avg, g, 1 - beta1)
    torch._foreach_mul_(exp_avg_sq, beta2)
    torch._foreach_addcmul_(exp_avg_sq, g, g, value=1 - beta2)
    denominators = torch._foreach_sqrt(exp_avg_sq)
    torch._foreach_div_(denominators, math.sqrt(1 - beta2**step))
    torch._foreach_add_(denominators, eps)
    torch._foreach_addcdiv_(p, exp_avg, denominators, value=-lr / (1 - beta1**step))

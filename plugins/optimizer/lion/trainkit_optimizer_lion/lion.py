"""Lion: the sign of a momentum that looks one step ahead. One moment, no denominators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.optim.optimizer import ParamsT
from trainkit.optim import ElementwiseOptimizer
from trainkit.optim.checks import Beta
from trainkit.optim.ops import Operand, Ops


def lion(
    p: Tensor, g: Tensor, exp_avg: Tensor, lr: Tensor, beta1: Tensor, share: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    """Return parameters and moment after one step; `share` is 1 - beta2, `keep` is 1 - lr x weight decay.

    The sign is that of the average with beta1, and the average that is kept is the one with beta2: both are taken from
    the moment as it was before. A direction of exactly 0 moves nothing.
    """
    # Averages are PyTorch's own: a sign that another rounding turns would move a weight by twice the rate.
    direction = torch.sign(torch.lerp(g, exp_avg, beta1))
    return p * keep - lr * direction, torch.lerp(exp_avg, g, share)


class Lion(ElementwiseOptimizer):
    """Move every weight by the same length, along the sign of a momentum; decay weights apart from that.

    p <- p (1 - lr wd) - lr sign(b1 m + (1 - b1) g), then m = b2 m + (1 - b2) g. Takes a rate 3 to 10 times smaller than
    AdamW's and a weight decay as many times larger. The moment takes 4 bytes per float32 parameter, half of AdamW's.

    Args:
        params: parameters or parameter groups.
        lr: learning rate: how far every weight moves in each step.
        betas: weight of the momentum in the direction, and decay of the momentum, per step.
        weight_decay: share of a weight, times lr, that is taken away in each step.
        maximize: ascend instead of descend.
        compiled: run the step as one compiled kernel (CPU; needs a C++ compiler, once some ten seconds).

    Source: Chen et al. 2023, arXiv 2302.06675 [paper].
    """

    moments = ("exp_avg",)
    formula = staticmethod(lion)

    def __init__(
        self,
        params: ParamsT,
        lr: PositiveFloat = 1e-4,
        betas: tuple[Beta, Beta] = (0.9, 0.99),
        weight_decay: NonNegativeFloat = 0.0,
        maximize: bool = False,
        compiled: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, defaults, maximize=maximize, compiled=compiled)

    def coefficients(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        """Return lr, beta1, 1 - beta2, and the share of the weights that decay leaves."""
        lr = float(group["lr"])
        beta1, beta2 = group["betas"]
        return lr, beta1, 1 - beta2, 1 - lr * group["weight_decay"]

    def update(
        self,
        ops: Ops,
        p: Operand,
        g: Operand,
        moments: Sequence[Operand],
        work: Sequence[Operand],
        lr: float,
        beta1: float,
        share: float,
        keep: float,
    ) -> None:
        """Take the sign before the moment moves on."""
        (exp_avg,) = moments
        direction = ops.lerp(g, exp_avg, beta1, out=work[0])
        ops.sign_(direction)
        if keep != 1:
            ops.mul_(p, keep)
        ops.add_(p, direction, alpha=-lr)
        ops.lerp_(exp_avg, g, share)

"""GPro: the step of Adam, its norm capped tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.optim.optimizer import ParamsT
from trainkit.optim import OptimizerError, ScaledOptimizer
from trainkit.optim.checks import Beta, check_bound
from trainkit.optim.ops import Operand, Ops

CAPS = {"l2": 0.5, "rms": 1.0}


def gpro(
    p: Tensor,
    g: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    root: Tensor,
    eps: Tensor,
    coupled: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the direction q = m / (root sqrt(v) + eps) of a step, before it is capped, and both moments after it.

    `root` is 1 / sqrt(1 - beta2^t); m is not corrected. `coupled` is the weight decay inside the gradient.
    """
    g = g + coupled * p
    exp_avg = g + beta1 * (exp_avg - g)
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g * g
    return exp_avg / (root * exp_avg_sq.sqrt() + eps), exp_avg, exp_avg_sq


def gpro_amsgrad(
    p: Tensor,
    g: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    max_exp_avg_sq: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    root: Tensor,
    eps: Tensor,
    coupled: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what `gpro` returns, with the largest second moment so far as the denominator, and that moment too."""
    _, exp_avg, exp_avg_sq = gpro(p, g, exp_avg, exp_avg_sq, beta1, beta2, root, eps, coupled)
    max_exp_avg_sq = torch.maximum(max_exp_avg_sq, exp_avg_sq)
    return exp_avg / (root * max_exp_avg_sq.sqrt() + eps), exp_avg, exp_avg_sq, max_exp_avg_sq


def capped(norms: Tensor, cap: float) -> Tensor:
    """Return the factor of each tensor that brings a norm down to the cap; 1 where it is not above."""
    return torch.where(norms > cap, cap / norms, 1.0)


class GPro(ScaledOptimizer):
    """Take the step of Adam with L2 decay, and cap the norm of each tensor's step.

    g <- g + wd p; q = m / (sqrt(v^) + eps), with m not corrected for its bias; where ||q|| > c: q <- q c / ||q||;
    p <- p - lr / (1 - b1^t) q. A small tensor never reaches the cap and takes the step of Adam. A large one moves by
    lr c / sqrt(numel) an element, and by up to 1 / (1 - b1) = 10 times that in the first steps: always warm up. With
    norm="rms" the root mean square of the corrected direction is capped instead, which treats tensors of all sizes
    alike. Moments take 8 bytes per float32 parameter, 12 with amsgrad.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        betas: decay of the first and of the second moment, per step.
        eps: added to the denominator.
        weight_decay: weight of the parameters inside the gradient; decoupled: share of them, times lr, taken away.
        projection_factor: the cap; 0.5 for the norm l2 and 1 for rms if not given.
        norm: what is capped: l2, the norm of a tensor's direction, or rms, its root mean square after bias correction.
        decoupled: decay weights apart from the gradient, as AdamW does.
        amsgrad: divide by the largest second moment so far.
        maximize: ascend instead of descend.
        compiled: run the step as one compiled kernel (CPU; needs a C++ compiler, once some ten seconds).

    Source: lee101/stock-prediction, hftraining/hf_trainer.py [impl]; there is no paper. norm and decoupled [reading].
    """

    moments = ("exp_avg", "exp_avg_sq")
    scratches = 1
    formula = staticmethod(gpro)

    def __init__(
        self,
        params: ParamsT,
        lr: PositiveFloat = 1e-3,
        betas: tuple[Beta, Beta] = (0.9, 0.999),
        eps: NonNegativeFloat = 1e-8,
        weight_decay: NonNegativeFloat = 0.01,
        projection_factor: PositiveFloat | None = None,
        norm: Literal["l2", "rms"] = "l2",
        decoupled: bool = False,
        amsgrad: bool = False,
        maximize: bool = False,
        compiled: bool = False,
    ) -> None:
        if norm not in CAPS:
            raise OptimizerError(f"GPro: norm = {norm!r}", why="norm takes 'l2' or 'rms'")
        cap = CAPS[norm] if projection_factor is None else projection_factor
        self.measure = "rms" if norm == "rms" else "norm"
        self.decoupled = decoupled
        if amsgrad:
            self.moments = (*self.moments, "max_exp_avg_sq")
            self.formula = gpro_amsgrad
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "projection_factor": cap}
        super().__init__(params, defaults, maximize=maximize, compiled=compiled)

    def check(self, group: dict[str, Any]) -> None:
        """Raise OptimizerError where a hyper-parameter of a group is out of range."""
        super().check(group)
        check_bound(self.label, group, "projection_factor")

    def coefficients(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        """Return the betas, the bias correction of the denominator, eps and the decay inside the gradient."""
        beta1, beta2 = group["betas"]
        return beta1, beta2, (1 - beta2**step) ** -0.5, group["eps"], 0.0 if self.decoupled else group["weight_decay"]

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
        eps: float,
        coupled: float,
    ) -> Operand:
        """Move the moments on, then divide."""
        exp_avg, exp_avg_sq = moments[:2]
        if coupled:
            g = ops.add(g, p, alpha=coupled, out=work[0])
        ops.lerp_(exp_avg, g, 1 - beta1)
        ops.mul_(exp_avg_sq, beta2)
        ops.addcmul_(exp_avg_sq, g, g, value=1 - beta2)
        if len(moments) == 3:
            ops.maximum_(moments[2], exp_avg_sq)
        denominator = ops.sqrt(moments[-1], out=out)
        ops.mul_(denominator, root)
        ops.add_(denominator, eps)
        return ops.div(exp_avg, denominator, out=out)

    def lengths(self, group: dict[str, Any], step: int, weights: Tensor, directions: Tensor) -> Tensor:
        """Return the rate, corrected for the bias of the momentum, times what the cap leaves."""
        correction, cap = 1 - group["betas"][0] ** step, group["projection_factor"]
        # The root mean square is that of the corrected direction; the faithful norm is taken before the correction.
        factor = capped(directions / correction if self.measure == "rms" else directions, cap)
        return float(group["lr"]) / correction * factor

    def decay(self, group: dict[str, Any]) -> float:
        """Return the share of the weights that a step takes away beside the gradient."""
        return float(group["lr"]) * group["weight_decay"] if self.decoupled else 0.0

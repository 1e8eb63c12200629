"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.optim.optimizer import ParamsT
from trainkit.optim import ElementwiseOptimizer, OptimizerError
from trainkit.optim.checks import Beta
from trainkit.optim.ops import ListOps, Operand, Ops

NUMBERS = 5


def sgd(p: Tensor, g: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """Return parameters, and the momentum if there is one, after one step.

    Args:
        p: parameters.
        g: gradients.
        rest: momentum buffer, if there is one; lr, momentum, 1 for nesterov or 0, coupled weight decay, and the share
            of the weights that decoupled decay leaves.
    """
    lr, momentum, nesterov, coupled, keep = rest[-NUMBERS:]
    buffers = rest[:-NUMBERS]
    g = g + coupled * p
    if not buffers:
        return (p * keep - lr * g,)
    moved = momentum * buffers[0] + g
    direction = nesterov * g + (1 - nesterov + nesterov * momentum) * moved
    return p * keep - lr * direction, moved


class SGD(ElementwiseOptimizer):
    """Step against the gradient, or against a decaying sum of gradients.

    b = momentum b + g, p <- p - lr b; with nesterov p <- p - lr (g + momentum b). Weight decay is coupled as in
    torch.optim.SGD, where published settings come from: g <- g + wd p before all else. With `decoupled` it is
    p <- p (1 - lr wd), as AdamW does: with momentum that is about (1 - momentum) times as strong. The momentum takes 4
    bytes per float32 parameter; without it there is no state.

    Args:
        params: parameters or parameter groups.
        lr: learning rate; with momentum m a step is up to 1 / (1 - m) times as long.
        momentum: decay of the sum of gradients, per step; 0: the gradient alone.
        nesterov: look one step ahead along the momentum.
        weight_decay: added to the gradient as this share of the weight; or decoupled.
        decoupled: take away lr times weight_decay of each weight instead.
        maximize: ascend instead of descend.
        compiled: run the step as one compiled kernel (CPU; needs a C++ compiler, once some ten seconds).

    Raises:
        OptimizerError: nesterov without momentum.

    Source: Robbins and Monro 1951; Sutskever et al. 2013 (momentum); torch.optim.SGD [impl].
    """

    formula = staticmethod(sgd)
    scratches = 0

    def __init__(
        self,
        params: ParamsT,
        lr: PositiveFloat = 1e-2,
        momentum: Beta = 0.0,
        nesterov: bool = False,
        weight_decay: NonNegativeFloat = 0.0,
        decoupled: bool = False,
        maximize: bool = False,
        compiled: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "decoupled": decoupled,
        }
        super().__init__(params, defaults, maximize=maximize, compiled=compiled)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; it may set any hyper-parameter of its own. The first one with momentum gives buffers to all."""
        before = self.moments
        super().add_param_group(param_group)
        if self.moments != before:
            self.rebuild()

    def check(self, group: dict[str, Any]) -> None:
        """Raise OptimizerError where a hyper-parameter of a group is out of range, or contradicts another."""
        super().check(group)
        if group["nesterov"] and not group["momentum"]:
            raise OptimizerError(
                f"{self.label}: nesterov without momentum",
                why="it looks ahead along the momentum",
                do="set momentum, as 0.9, or leave nesterov out",
            )

    @property
    def moments(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the names of the state tensors: none where no group has momentum."""
        return ("momentum_buffer",) if any(group["momentum"] for group in self.param_groups) else ()

    def coefficients(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        """Return lr, momentum, 1 for nesterov or 0, coupled weight decay, and what decoupled decay leaves."""
        lr, decay = float(group["lr"]), group["weight_decay"]
        coupled, keep = (0.0, 1 - lr * decay) if group["decoupled"] else (decay, 1.0)
        return lr, group["momentum"], float(group["nesterov"]), coupled, keep

    def update(
        self,
        ops: Ops,
        p: Operand,
        g: Operand,
        moments: Sequence[Operand],
        work: Sequence[Operand],
        lr: float,
        momentum: float,
        nesterov: float,
        coupled: float,
        keep: float,
    ) -> None:
        """Decay, then step by PyTorch's fused kernel on the CPU and by its multi-tensor functions elsewhere."""
        if keep != 1:
            ops.mul_(p, keep)
        if ops is ListOps:
            step_lists(p, g, moments, lr, momentum, bool(nesterov), coupled)
            return
        torch._fused_sgd_(
            [p],
            [g],
            list(moments) if momentum else [],
            weight_decay=coupled,
            momentum=momentum,
            lr=lr,
            dampening=0.0,
            nesterov=bool(nesterov),
            maximize=False,
            is_first_step=False,
        )


def step_lists(
    p: list[Tensor],
    g: list[Tensor],
    moments: Sequence[list[Tensor]],
    lr: float,
    momentum: float,
    nesterov: bool,
    coupled: float,
) -> None:
    """Step lists of tensors in place; `g` stays as it is."""
    if coupled:
        g = torch._foreach_add(g, p, alpha=coupled)
    if moments and momentum:
        (buffers,) = moments
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, g)
        g = torch._foreach_add(g, buffers, alpha=momentum) if nesterov else buffers
    torch._foreach_add_(p, g, alpha=-lr)

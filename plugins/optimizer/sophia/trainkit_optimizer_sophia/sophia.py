"""Sophia: a momentum divided by the diagonal of the curvature, and clipped element by element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.optim.optimizer import ParamsT
from trainkit import hookimpl
from trainkit.optim import ElementwiseOptimizer, OptimizerError
from trainkit.optim.checks import Beta
from trainkit.optim.norms import full_sum
from trainkit.optim.ops import Operand, Ops

from .refresh import Estimator, check_run, curvature_of

if TYPE_CHECKING:
    from trainkit.live import Run

BETAS: dict[Estimator, tuple[float, float]] = {"hutchinson": (0.96, 0.99), "gauss-newton-bartlett": (0.965, 0.99)}
GAMMA: dict[Estimator, float] = {"hutchinson": 0.01, "gauss-newton-bartlett": 0.05}


def sophia(
    p: Tensor,
    g: Tensor,
    exp_avg: Tensor,
    hessian: Tensor,
    lr: Tensor,
    weight: Tensor,
    gamma: Tensor,
    eps: Tensor,
    keep: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return parameters, momentum and curvature after one step; `weight` is 1 - beta1, `keep` 1 - lr x weight decay.

    Where the curvature is small, unknown (0) or negative the floor `eps` makes the step one of full length lr along the
    sign of the momentum.
    """
    exp_avg = exp_avg + weight * (g - exp_avg)
    step = torch.clamp(exp_avg / torch.maximum(gamma * hessian, eps), -1, 1)
    return p * keep - lr * step, exp_avg, hessian.clone()


class Sophia(ElementwiseOptimizer):
    """Divide a momentum by the curvature along each axis, and clip: flat directions take long steps, steep ones short.

    m = b1 m + (1 - b1) g, p <- p (1 - lr wd) - lr clip(m / max(gamma h, eps), -1, 1). Every few steps
    h = b2 h + (1 - b2) h^, with h^ an estimate of the diagonal of the curvature itself: of the Hessian (Hutchinson, by
    second derivatives, for every smooth loss), or of its Gauss-Newton part (Gauss-Newton-Bartlett, for likelihoods of
    `logits`). Takes AdamW's rate, or a little less. The two moments take 8 bytes per float32 parameter.

    In a run the curvature is that of the last batch, after the steps 1, 1 + every, 1 + 2 every, ... In a loop of your
    own ask `curvature_due` after each step and call `update_curvature`. The share of weights that are not clipped is
    logged as train/win_rate; between 0.1 and 0.5 gamma is right [paper].

    Args:
        params: parameters or parameter groups.
        lr: learning rate: how far a weight moves at most in each step.
        betas: decay of the momentum per step and of the curvature per estimate; unset: 0.96 or 0.965, and 0.99.
        gamma: share of the curvature that divides; unset: 0.01 (hutchinson) or 0.05 (gauss-newton-bartlett).
        eps: smallest divisor.
        weight_decay: share of a weight, times lr, that is taken away in each step.
        estimator: 'hutchinson' or 'gauss-newton-bartlett'.
        every: optimizer steps between two estimates.
        samples: how many samples of the batch an estimate looks at; unset: all.
        maximize: ascend instead of descend.
        compiled: run the step as one compiled kernel (CPU; needs a C++ compiler, once some ten seconds).

    Raises:
        OptimizerError: the model, its loss or how it is run has no such curvature; the message names the other way.

    Source: Liu et al. 2023, arXiv 2305.14342 [paper].
    """

    moments = ("exp_avg", "hessian")
    formula = staticmethod(sophia)

    def __init__(
        self,
        params: ParamsT,
        lr: PositiveFloat = 5e-4,
        betas: tuple[Beta, Beta] | None = None,
        gamma: PositiveFloat | None = None,
        eps: PositiveFloat = 1e-12,
        weight_decay: NonNegativeFloat = 0.1,
        estimator: Estimator = "hutchinson",
        every: PositiveInt = 10,
        samples: PositiveInt | None = None,
        maximize: bool = False,
        compiled: bool = False,
    ) -> None:
        if estimator not in BETAS:
            raise OptimizerError(f"Sophia: estimator = {estimator}", why=f"estimator takes {' or '.join(BETAS)}")
        for name, number in (("every", every), ("samples", samples)):
            if number is not None and (number != int(number) or number < 1):
                raise OptimizerError(f"Sophia: {name} = {number}", why=f"{name} takes a whole number of at least 1")
        self.estimator, self.every, self.samples = estimator, every, samples
        defaults = {
            "lr": lr,
            "betas": BETAS[estimator] if betas is None else betas,
            "gamma": GAMMA[estimator] if gamma is None else gamma,
            "eps": eps,
            "weight_decay": weight_decay,
            "updates": 0,
        }
        super().__init__(params, defaults, maximize=maximize, compiled=compiled)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; it may set any hyper-parameter of its own."""
        super().add_param_group(param_group)
        for key in ("gamma", "eps"):
            value = float(self.param_groups[-1][key])
            if not (math.isfinite(value) and value > 0):
                raise OptimizerError(f"Sophia: {key} = {value}", why=f"{key} divides: it takes a number above 0")

    def coefficients(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        """Return lr, 1 - beta1, gamma, eps and the share of the weights that decay leaves."""
        lr = float(group["lr"])
        return lr, 1 - group["betas"][0], group["gamma"], group["eps"], 1 - lr * group["weight_decay"]

    def update(
        self,
        ops: Ops,
        p: Operand,
        g: Operand,
        moments: Sequence[Operand],
        work: Sequence[Operand],
        lr: float,
        weight: float,
        gamma: float,
        eps: float,
        keep: float,
    ) -> None:
        """Move the momentum on, then divide it by the curvature and clip."""
        exp_avg, hessian = moments
        ops.lerp_(exp_avg, g, weight)
        divisor = ops.mul(hessian, gamma, out=work[0])
        ops.clamp_min_(divisor, eps)
        direction = ops.div(exp_avg, divisor, out=work[0])
        ops.clamp_(direction, -1.0, 1.0)
        if keep != 1:
            ops.mul_(p, keep)
        ops.add_(p, direction, alpha=-lr)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; return what the closure returned."""
        loss = super().step(closure)
        for group in self.param_groups:
            group["updates"] += 1
        return loss

    @property
    def curvature_due(self) -> bool:
        """Return whether the step just made, the first or a multiple of `every` after it, asks for an estimate."""
        updates: int = self.param_groups[0]["updates"]
        return updates > 0 and (updates - 1) % self.every == 0

    def curved(self) -> list[Tensor]:
        """Return the parameters whose curvature is estimated: those that learn and have been stepped.

        Raises:
            OptimizerError: parameters are sharded.
        """
        found = [
            p for group in self.param_groups for p in group["params"] if p.requires_grad and "hessian" in self.state[p]
        ]
        if any(hasattr(p, "full_tensor") for p in found):
            raise OptimizerError(
                "sophia estimates no curvature of sharded parameters",
                why="FSDP passes gradients to shards by hooks that derivatives for a curvature do not meet",
                do="train on one device or by DDP, or take another optimizer",
            )
        return found

    @torch.no_grad()
    def update_curvature(self, estimates: Sequence[Tensor]) -> None:
        """Take estimates of the diagonal, one for each parameter of `curved()`, into the moving average.

        Under torch.distributed they are averaged over the ranks, so every rank has to call this.

        Args:
            estimates: of the curvature of the mean loss; of each parameter's shape. Where an axis is maximised, a
                Hessian's sign is turned here.
        """
        params = self.curved()
        shapes = [tuple(estimate.shape) for estimate in estimates]
        if shapes != [tuple(p.shape) for p in params]:
            raise OptimizerError(
                f"sophia: {len(shapes)} estimates do not match the {len(params)} parameters of curved()",
                why="there has to be one of each parameter's shape, in that order",
            )
        averaged = dict(zip(params, over_ranks(estimates), strict=True))
        for group in self.param_groups:
            members = [p for p in group["params"] if p in averaged]
            if not members:
                continue
            kept = [self.state[p]["hessian"] for p in members]
            sign = -1.0 if group["maximize"] and self.estimator == "hutchinson" else 1.0
            new = [sign * averaged[p].to(h.dtype) for p, h in zip(members, kept, strict=True)]
            torch._foreach_lerp_(kept, new, 1 - group["betas"][1])

    @torch.no_grad()
    def win_rate(self) -> Tensor:
        """Return the share of weights [] that a step along the momentum as it is would not clip."""
        won, count = [], 0
        for group in self.param_groups:
            states = [self.state[p] for p in group["params"] if "hessian" in self.state[p]]
            if not states:
                continue
            room = torch._foreach_mul([state["hessian"] for state in states], group["gamma"])
            torch._foreach_clamp_min_(room, group["eps"])
            torch._foreach_sub_(room, torch._foreach_abs([state["exp_avg"] for state in states]))
            torch._foreach_sign_(room)
            torch._foreach_clamp_min_(room, 0.0)
            won.append(full_sum(room))
            count += sum(tensor.numel() for tensor in room)
        return torch.stack(won).sum() / count if count else torch.zeros(())

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Refuse a run that cannot give a curvature."""
        check_run(run, self.estimator)

    @hookimpl
    def on_step(self, run: Run) -> None:
        """Refresh the curvature when it is due, after the update and before the schedule moves on."""
        if not self.curvature_due:
            return
        params = self.curved()
        if params:
            self.update_curvature(curvature_of(run, params, self.estimator, self.samples))
            run.record("train/win_rate", self.win_rate())


def over_ranks(estimates: Sequence[Tensor]) -> list[Tensor]:
    """Return the mean of estimates over all ranks; the estimates themselves where there is one rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return list(estimates)
    summed = [estimate.clone() for estimate in estimates]
    for estimate in summed:
        torch.distributed.all_reduce(estimate)
    return [estimate / torch.distributed.get_world_size() for estimate in summed]

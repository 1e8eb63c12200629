"""Schedule-free AdamW: an average of the weights takes the place of a schedule."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT
from trainkit import hookimpl
from trainkit.optim import ElementwiseOptimizer, OptimizerError
from trainkit.optim.base import full_dtype
from trainkit.optim.checks import Beta
from trainkit.optim.ops import Operand, Ops

from .averaging import Averaging, warmed_up

if TYPE_CHECKING:
    from trainkit.live import Run

_log = logging.getLogger(__name__)

Interpolation = Annotated[float, Field(gt=0, lt=1)]
HELD = "y"


def schedule_free_adamw(
    y: Tensor,
    g: Tensor,
    z: Tensor,
    exp_avg_sq: Tensor,
    lr: Tensor,
    beta1: Tensor,
    weight: Tensor,
    correction: Tensor,
    eps: Tensor,
    decay: Tensor,
    share: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return where gradients are taken next, the fast weights and the second moment after one step.

    The average x is not kept: it follows from y = (1 - beta1) z + beta1 x, and c of it is replaced by the new z.

    Args:
        y: the weights at which the gradient was taken.
        g: the gradient.
        z: the fast weights.
        exp_avg_sq: moving average of squared gradients.
        lr: rate of this step, warm-up included.
        beta1: share of the average in y.
        weight: 1 - beta2.
        correction: 1 / sqrt(1 - beta2^step).
        eps: added to the denominator.
        decay: weight decay, at y.
        share: c, the share of the new z in the average.
    """
    exp_avg_sq = exp_avg_sq + weight * (g * g - exp_avg_sq)
    direction = g / (exp_avg_sq.sqrt() * correction + eps) + decay * y
    return y + share * (z - y) + lr * (beta1 * (1 - share) - 1) * direction, z - lr * direction, exp_avg_sq


class ScheduleFreeAdamW(ElementwiseOptimizer):
    """Train fast weights, take gradients near their running average, and evaluate the average.

    With the fast weights z, the average x and y = (1 - b1) z + b1 x, where gradients are taken:
    v = b2 v + (1 - b2) g^2, z <- z - lr (g / (sqrt(v^) + eps) + wd y), x <- (1 - c) x + c z. The length of training
    need not be known: it can stop at any step. Takes a rate of AdamW's size or up to 10 times larger. z and v take 8
    bytes per float32 parameter; evaluation takes 4 more while it lasts.

    `train()` puts y in place, `eval()` x. trainkit calls them, and checkpoints hold x; in a loop of your own call them
    around evaluation and saving. A step in evaluation mode raises.

    Args:
        params: parameters or parameter groups.
        lr: learning rate after the warm-up; it stays.
        betas: share of the average in y, and decay of the second moment per step.
        eps: added to the denominator.
        weight_decay: share of a weight, times lr, that is taken away in each step.
        warmup: steps over which the rate rises to lr.
        r: power of the step with which a step counts in the average; 0: all alike after the warm-up.
        maximize: ascend instead of descend.
        compiled: run the step as one compiled kernel (CPU; needs a C++ compiler, once some ten seconds).

    Raises:
        OptimizerError: a step is asked for in evaluation mode.

    Source: Defazio et al. 2024, arXiv 2405.15682 [paper].
    """

    takes_scheduler = False
    takes_rate = False
    moments = ("z", "exp_avg_sq")
    formula = staticmethod(schedule_free_adamw)

    def __init__(
        self,
        params: ParamsT,
        lr: PositiveFloat = 2.5e-3,
        betas: tuple[Interpolation, Beta] = (0.9, 0.999),
        eps: PositiveFloat = 1e-8,
        weight_decay: NonNegativeFloat = 0.0,
        warmup: NonNegativeInt = 0,
        r: NonNegativeFloat = 0.0,
        maximize: bool = False,
        compiled: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "warmup": warmup,
            "r": r,
            "training": True,
        }
        super().__init__(params, defaults, maximize=maximize, compiled=compiled)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; it may set any hyper-parameter of its own."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group["training"] = self.param_groups[0]["training"]
        _check(group)

    def initial(self, name: str, param: Tensor) -> Tensor:
        """Return a moment's value before the first step: z is where the weights are."""
        if name == "z":
            return param.detach().to(full_dtype(param.dtype), copy=True, memory_format=torch.preserve_format)
        return super().initial(name, param)

    def coefficients(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        """Return lr, beta1, 1 - beta2, 1 / sqrt(bias correction), eps, decay and the share of the new z."""
        beta1, beta2 = group["betas"]
        averaging = self._averaging.setdefault((group["warmup"], group["r"]), Averaging(group["warmup"], group["r"]))
        lr = float(group["lr"]) * warmed_up(step, group["warmup"])
        correction = (1 - beta2**step) ** -0.5
        return lr, beta1, 1 - beta2, correction, group["eps"], group["weight_decay"], averaging.share(step)

    def update(
        self,
        ops: Ops,
        p: Operand,
        g: Operand,
        moments: Sequence[Operand],
        work: Sequence[Operand],
        lr: float,
        beta1: float,
        weight: float,
        correction: float,
        eps: float,
        decay: float,
        share: float,
    ) -> None:
        """Move v on, then y and z along the same direction."""
        z, exp_avg_sq = moments
        ops.mul_(exp_avg_sq, 1 - weight)
        ops.addcmul_(exp_avg_sq, g, g, value=weight)
        divisor = ops.sqrt(exp_avg_sq, out=work[0])
        ops.mul_(divisor, correction)
        ops.add_(divisor, eps)
        direction = ops.div(g, divisor, out=work[0])
        if decay:
            ops.add_(direction, p, alpha=decay)
        ops.lerp_(p, z, share)
        ops.add_(p, direction, alpha=lr * (beta1 * (1 - share) - 1))
        ops.add_(z, direction, alpha=-lr)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; return what the closure returned."""
        if not all(group["training"] for group in self.param_groups):
            raise OptimizerError(
                "schedule-free-adamw: a step in evaluation mode",
                why="the weights in place are their average, at which no gradient may be taken",
                do="call optimizer.train() before the forward pass of a step, optimizer.eval() before an evaluation",
            )
        return super().step(closure)

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average in place of the weights, which are kept until `train`; nothing if it is there already."""
        for group in self._groups(training=True):
            beta1 = group["betas"][0]
            for p in group["params"]:
                state = self.state.get(p, {})
                if "z" in state:
                    state[HELD] = p.detach().clone()
                    p.copy_(torch.lerp(p.to(state["z"].dtype), state["z"], 1 - 1 / beta1))

    @torch.no_grad()
    def train(self) -> None:
        """Put the weights back at which gradients are taken, to the bit; nothing if they are there already."""
        for group in self._groups(training=False):
            for p in group["params"]:
                if HELD in self.state.get(p, {}):
                    p.copy_(self.state[p].pop(HELD))

    def _groups(self, *, training: bool) -> Iterator[dict[str, Any]]:
        for group in self.param_groups:
            if group["training"] is training:
                yield group
                group["training"] = not training

    def _forget(self) -> None:
        super()._forget()
        self._averaging: dict[tuple[int, float], Averaging] = {}

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Warn where running averages of activations will be those of other weights than are evaluated."""
        names = [name for name, inner in run.model.named_modules() if _tracks_activations(inner)]
        if names:
            _log.warning(
                "schedule-free-adamw evaluates averaged weights, but %s (%d in all) averages activations of the "
                "weights in training: evaluations look worse than the model is; take a norm without running averages",
                names[0],
                len(names),
            )


def _tracks_activations(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats


def _check(group: dict[str, Any]) -> None:
    rules = {
        "eps": (group["eps"] > 0, "a number above 0"),
        "betas": (group["betas"][0] > 0, "a first one above 0: the average is found by dividing by it"),
        "warmup": (group["warmup"] >= 0 and group["warmup"] == int(group["warmup"]), "a whole number of at least 0"),
        "r": (0 <= group["r"] < float("inf"), "a number of at least 0"),
    }
    for key, (holds, allowed) in rules.items():
        if not holds:
            raise OptimizerError(f"ScheduleFreeAdamW: {key} = {group[key]}", why=f"{key} takes {allowed}")

"""Adan: Nesterov momentum from differences of gradients, and a denominator that knows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.optim.optimizer import ParamsT
from trainkit.optim import ElementwiseOptimizer, OptimizerError
from trainkit.optim.blocks import AnyBlock
from trainkit.optim.checks import Beta
from trainkit.optim.norms import full_sum
from trainkit.optim.ops import Operand, Ops

CONDITIONS = "none, 'manual', {every = N} with a whole number above 0, or {radius = R} with a number above 0"


def checked_restart(restart: Any) -> Any:
    """Return a condition as it is; raise ValueError unless it is one of CONDITIONS."""
    if restart is None or restart == "manual":
        return restart
    if isinstance(restart, dict) and len(restart) == 1:
        ((condition, value),) = restart.items()
        number = isinstance(value, int | float) and 0 < value < math.inf
        if number and (condition == "radius" or (condition == "every" and float(value).is_integer())):
            return restart
    raise ValueError(f"it takes {CONDITIONS}")


Restart = Annotated[str | dict[str, float] | None, AfterValidator(checked_restart)]


def adan(
    p: Tensor,
    g: Tensor,
    exp_avg: Tensor,
    exp_avg_diff: Tensor,
    exp_avg_sq: Tensor,
    prev_grad: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    beta3: Tensor,
    is_later: Tensor,
    rate: Tensor,
    diff_rate: Tensor,
    root: Tensor,
    eps: Tensor,
    before: Tensor,
    after: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return parameters and the four moments after one step; the last moment is the gradient itself.

    `is_later` is 0 at a first step, where there is no difference yet, and 1 after it. `rate` is lr / (1 - beta1^t),
    `diff_rate` is lr beta2 / (1 - beta2^t), `root` is 1 / sqrt(1 - beta3^t). Parameters are multiplied by `before` the
    step and divided by `after` it: one of the two is the decay, the other one 1.
    """
    difference = (g - prev_grad) * is_later
    exp_avg = g + beta1 * (exp_avg - g)
    exp_avg_diff = difference + beta2 * (exp_avg_diff - difference)
    ahead = g + beta2 * difference
    exp_avg_sq = beta3 * exp_avg_sq + (1 - beta3) * ahead * ahead
    step = (rate * exp_avg + diff_rate * exp_avg_diff) / (root * exp_avg_sq.sqrt() + eps)
    return (p * before - step) / after, exp_avg, exp_avg_diff, exp_avg_sq, g


def squared_length(before: Tensor, after: Tensor, exp_avg_sq: Tensor, correction: float) -> Tensor:
    """Return the squared length of a step in the norm that weighs each element by sqrt(n^), n^ = n / correction."""
    return (after - before).square_().mul_((exp_avg_sq / correction).sqrt_())


class Adan(ElementwiseOptimizer):
    """Look ahead by the differences of gradients, and adapt the step of each weight to both.

    d = g - g_previous (0 at first); m, w, n are the averages of g, d and (g + b2 d)^2;
    p <- (p - lr (m^ + b2 w^) / (sqrt(n^) + eps)) / (1 + lr wd). Takes a rate 5 to 10 times larger than AdamW's. Moments
    take 16 bytes per float32 parameter, twice AdamW's.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        betas: decay of the averages of gradients, of their differences and of squares: 1 minus the betas of the paper.
        eps: added to the denominator.
        weight_decay: decay of the weights, times lr.
        no_prox: decay weights by p (1 - lr wd) before the step, as AdamW does, instead of dividing after it.
        restart: when all averages start anew: none, 'manual' (by `restart()`), {every = N} steps, or {radius = R}: once
            k times the sum of the squared lengths of the k steps since the last restart exceeds R^2.
        maximize: ascend instead of descend.
        compiled: run the step as one compiled kernel (CPU; needs a C++ compiler, once some ten seconds).

    Source: Xie et al. 2022, arXiv 2208.06677 [paper]; when it restarts [reading].
    """

    moments = ("exp_avg", "exp_avg_diff", "exp_avg_sq", "prev_grad")
    beta_count = 3
    formula = staticmethod(adan)

    def __init__(
        self,
        params: ParamsT,
        lr: PositiveFloat = 1e-3,
        betas: tuple[Beta, Beta, Beta] = (0.98, 0.92, 0.99),
        eps: NonNegativeFloat = 1e-8,
        weight_decay: NonNegativeFloat = 0.0,
        no_prox: bool = False,
        restart: Restart = None,
        maximize: bool = False,
        compiled: bool = False,
    ) -> None:
        try:
            conditions = restart if isinstance(checked_restart(restart), dict) else {}
        except ValueError as fault:
            raise OptimizerError(f"Adan: restart = {restart!r}", why=str(fault)) from None
        self.may_restart = restart is not None
        self.every, self.radius = conditions.get("every"), conditions.get("radius")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "no_prox": no_prox}
        super().__init__(params, defaults, maximize=maximize, compiled=compiled)

    def restart(self) -> None:
        """Forget all averages and counts, so that the next step is a first one; the weights stay.

        Raises:
            OptimizerError: it was built with restart=None.
        """
        if not self.may_restart:
            raise OptimizerError(
                "Adan: restart() was called", why="it was built with restart=None", do="build it with restart='manual'"
            )
        self._start_anew([p for group in self.param_groups for p in group["params"]])
        for layout in self._layouts:
            for block in layout.blocks:
                block.count = 0
        for group in self.param_groups:
            group.pop("steps_since_restart", None)
            group.pop("length_since_restart", None)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient, and restart if it is time; return what the closure returned."""
        loss = super().step(closure)
        if self.radius is not None and self._is_outside(self.radius):
            self.restart()
        return loss

    def step_group(self, group: dict[str, Any], blocks: list[AnyBlock]) -> None:
        """Step the blocks of a group; those that have had their number of steps start anew."""
        super().step_group(group, blocks)
        if self.radius is not None and blocks:
            group["steps_since_restart"] = group.get("steps_since_restart", 0) + 1
        for block in blocks:
            if self.every is not None and block.count >= self.every:
                self._start_anew(block.params)
                block.count = 0

    def step_block(self, block: AnyBlock, group: dict[str, Any], numbers: tuple[float, ...]) -> None:
        """Step one block; measure how far it went where the radius decides."""
        if self.radius is None:
            super().step_block(block, group, numbers)
            return
        before = [p.detach().to(block.full, copy=True) for p in block.params]
        super().step_block(block, group, numbers)
        correction = 1 - group["betas"][2] ** block.count
        lengths = [
            squared_length(start, p, self.state[p]["exp_avg_sq"], correction)
            for start, p in zip(before, block.params, strict=True)
        ]
        group["length_since_restart"] = group.get("length_since_restart", 0.0) + float(full_sum(lengths))

    def coefficients(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        """Return the betas, whether there is a difference, both rates, the denominator's numbers and the decay."""
        lr, (beta1, beta2, beta3) = float(group["lr"]), group["betas"]
        rates = lr / (1 - beta1**step), lr * beta2 / (1 - beta2**step)
        share = lr * group["weight_decay"]
        decay = (1 - share, 1.0) if group["no_prox"] else (1.0, 1 + share)
        return beta1, beta2, beta3, float(step > 1), *rates, (1 - beta3**step) ** -0.5, group["eps"], *decay

    def update(
        self,
        ops: Ops,
        p: Operand,
        g: Operand,
        moments: Sequence[Operand],
        work: Sequence[Operand],
        beta1: float,
        beta2: float,
        beta3: float,
        is_later: float,
        rate: float,
        diff_rate: float,
        root: float,
        eps: float,
        before: float,
        after: float,
    ) -> None:
        """Take the difference first: the previous gradient is overwritten by it, then by this one."""
        exp_avg, exp_avg_diff, exp_avg_sq, prev_grad = moments
        if not is_later:
            ops.copy_(prev_grad, g)
        difference = ops.add(g, prev_grad, alpha=-1, out=work[0])
        ops.lerp_(exp_avg, g, 1 - beta1)
        ops.lerp_(exp_avg_diff, difference, 1 - beta2)
        ahead = ops.add(g, difference, alpha=beta2, out=work[0])
        ops.mul_(exp_avg_sq, beta3)
        ops.addcmul_(exp_avg_sq, ahead, ahead, value=1 - beta3)
        ops.copy_(prev_grad, g)
        denominator = ops.sqrt(exp_avg_sq, out=work[0])
        ops.mul_(denominator, root)
        ops.add_(denominator, eps)
        if before != 1:
            ops.mul_(p, before)
        ops.addcdiv_(p, exp_avg, denominator, value=-rate)
        ops.addcdiv_(p, exp_avg_diff, denominator, value=-diff_rate)
        if after != 1:
            ops.div_(p, after)

    def _is_outside(self, radius: float) -> bool:
        steps = max(group.get("steps_since_restart", 0) for group in self.param_groups)
        length = sum(group.get("length_since_restart", 0.0) for group in self.param_groups)
        return bool(steps * length > radius**2)

    def _start_anew(self, params: Sequence[Tensor]) -> None:
        for p in params:
            if state := self.state.get(p):
                for value in state.values():
                    value.zero_()

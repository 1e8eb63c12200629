"""Prodigy: Adam that estimates its learning rate from how far the weights have come."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.optim.optimizer import ParamsT
from trainkit import hookimpl
from trainkit.optim import ElementwiseOptimizer, OptimizerError
from trainkit.optim.base import closure_loss, full_dtype, plain_step
from trainkit.optim.blocks import AnyBlock, parts_of
from trainkit.optim.checks import Beta
from trainkit.optim.norms import full_sum
from trainkit.optim.ops import ListOps, Operand, Ops

if TYPE_CHECKING:
    from trainkit.live import Run

Growth = Annotated[float, Field(ge=1)]
SHARED = ("beta3", "d0", "d_coef", "growth_rate")
ESTIMATE = ("d", "d_max", "num")


def gather(
    p: Tensor, g: Tensor, p0: Tensor, s: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, *numbers: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return <g, p0 - p>, s and both moments after a gradient: what the estimate of the distance needs.

    Args:
        p: parameters.
        g: gradient.
        p0: the parameters at their first step.
        s: running sum of gradients.
        exp_avg: first moment.
        exp_avg_sq: second moment.
        numbers: decay of s, weight of g in s; decay of the first moment, weight of g in it; decay of the second moment,
            weight of g^2 in it.
    """
    keep, weight, beta1, first, beta2, second = numbers
    return (g * (p0 - p)).sum(), keep * s + weight * g, beta1 * exp_avg + first * g, beta2 * exp_avg_sq + second * g * g


def apply(p: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, lr: float, floor: float, decay: float) -> Tensor:
    """Return the parameters after a step of length lr: weight decay, then Adam's direction over a floor."""
    return p * (1 - lr * decay) - lr * exp_avg / (exp_avg_sq.sqrt() + floor)


class Prodigy(ElementwiseOptimizer):
    """Do what Adam does at the rate lr d, with d an estimate of the distance to the solution that only grows.

    Over all parameters together: num <- b3 num + (d / d0) d lr <g, p0 - p>, s <- b3 s + (d / d0) d lr g,
    d^ = d_coef num / |s|_1, and d is the largest d^ so far. m and v are Adam's, of the gradient times d. Leave lr at 1:
    it stands for a schedule's factor, and a cosine is a good one. State takes 16 bytes per float32 parameter.

    Groups with other rates keep their ratios: they step as one group would whose weights were measured in their units.

    Args:
        params: parameters or parameter groups.
        lr: factor of the estimated rate.
        betas: decay of the two moments per step.
        beta3: decay of num and s; unset: the square root of the second beta.
        eps: added to the denominator, times d.
        weight_decay: share of a weight, times lr and d, that is taken away in each step.
        d0: first estimate; small, it grows by itself.
        d_coef: factor of the estimate: below 1 for smaller steps, above 1 for larger ones.
        growth_rate: largest factor by which the estimate grows in a step; unset: any.
        bias_correction: correct the moments for their start at 0, which begins with larger steps.
        maximize: ascend instead of descend.

    Source: Mishchenko and Defazio 2023, arXiv 2306.06101 [paper]; the two factors d / d0 and d lr [impl].
    """

    takes_rate = False
    moments = ("p0", "s", "exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: ParamsT,
        lr: PositiveFloat = 1.0,
        betas: tuple[Beta, Beta] = (0.9, 0.999),
        beta3: Beta | None = None,
        eps: PositiveFloat = 1e-8,
        weight_decay: NonNegativeFloat = 0.0,
        d0: PositiveFloat = 1e-6,
        d_coef: PositiveFloat = 1.0,
        growth_rate: Growth | None = None,
        bias_correction: bool = False,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "beta3": beta3,
            "eps": eps,
            "weight_decay": weight_decay,
            "d0": d0,
            "d_coef": d_coef,
            "growth_rate": growth_rate,
            "bias_correction": bias_correction,
            "d": d0,
            "d_max": d0,
            "num": 0.0,
        }
        super().__init__(params, defaults, maximize=maximize)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; the estimate, and what it is made by, is that of all groups."""
        super().add_param_group(param_group)
        first, group = self.param_groups[0], self.param_groups[-1]
        _check(group)
        for key in SHARED:
            if group[key] != first[key]:
                raise OptimizerError(
                    f"Prodigy: {key} = {group[key]} in one group and {first[key]} in another",
                    why="there is one estimate for all groups",
                    do=f"set {key} for all of them",
                )
        group |= {key: first[key] for key in ESTIMATE}

    @plain_step
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Renew the estimate, then update all parameters that have a gradient; return what the closure returned."""
        loss = closure_loss(closure)
        ready = list(self.ready())
        d = float(self.param_groups[0]["d"])
        self._estimate(ready)
        for group, blocks in ready:
            for block in blocks:
                lr = d * float(group["lr"]) * _correction(group, block.count)
                self._apply(block, group, lr, group["d"] * group["eps"])
        return loss

    def _estimate(self, ready: list[tuple[dict[str, Any], list[AnyBlock]]]) -> None:
        """Take the gradients into the moments and into the estimate of the distance."""
        first = self.param_groups[0]
        beta3 = math.sqrt(first["betas"][1]) if first["beta3"] is None else first["beta3"]
        scale = first["d"] ** 2 / first["d0"]
        # The rates of groups are units of their weights, and <g, p0 - p> has no unit: the largest rate stands for all.
        largest = max(float(group["lr"]) for group in self.param_groups)
        products, sizes = [], []
        if scale * largest > torch.finfo(torch.float32).max:
            raise OptimizerError(
                f"prodigy: the estimate of the distance has grown to d = {first['d']:.3g}",
                why="the loss keeps falling along one direction, so there is no end to the distance",
                do="look at the loss, or bound the estimate by optimizer.growth_rate or a smaller optimizer.d_coef",
            )
        for group, blocks in ready:
            for block in blocks:
                block.tick()
                factor = scale * _correction(group, block.count)
                product, size = self._gather(block, group, beta3, factor * float(group["lr"]))
                products.append(factor * largest * product)
                sizes.append(size)
        if not products:
            return
        device = products[0].device
        # The only place where the device is waited for, once a step.
        num, size = torch.stack([torch.stack([x.to(device) for x in row]).sum() for row in (products, sizes)]).tolist()
        num += beta3 * first["num"]
        estimate = estimated(first["d"], first["d_max"], first["d0"], _ratio(first, num, size), first["growth_rate"])
        for group in self.param_groups:
            group |= {"num": num, "d": estimate[0], "d_max": estimate[1]}

    def _gather(self, block: AnyBlock, group: dict[str, Any], beta3: float, weight: float) -> tuple[Tensor, Tensor]:
        """Take the gradients of a block into its moments; return <g, p0 - p> and |s|_1 over it, in double precision."""
        (beta1, beta2), d = group["betas"], group["d"]
        products, sizes = [], []
        for ops, p, g, moments, work in parts_of(block, self.scratch, 1, flip=group["maximize"], keep=True):
            p0, s, exp_avg, exp_avg_sq = moments
            apart = ops.add(p0, p, alpha=-1.0, out=work[0])
            ops.mul_(apart, g)
            ops.mul_(s, beta3)
            ops.add_(s, g, alpha=weight)
            ops.mul_(exp_avg, beta1)
            ops.add_(exp_avg, g, alpha=d * (1 - beta1))
            ops.mul_(exp_avg_sq, beta2)
            ops.addcmul_(exp_avg_sq, g, g, value=d * d * (1 - beta2))
            products.append(_total(ops, apart))
            sizes.append(_total(ops, s, absolute=True))
        return torch.stack(products).sum(), torch.stack(sizes).sum()

    def _apply(self, block: AnyBlock, group: dict[str, Any], lr: float, floor: float) -> None:
        keep = 1 - lr * group["weight_decay"]
        for ops, p, _, moments, work in parts_of(block, self.scratch, 1, flip=False):
            divisor = ops.sqrt(moments[3], out=work[0])
            ops.add_(divisor, floor)
            if keep != 1:
                ops.mul_(p, keep)
            ops.addcdiv_(p, moments[2], divisor, value=-lr)

    @hookimpl
    def on_step(self, run: Run) -> None:
        """Log the estimate."""
        run.record("train/d", self.param_groups[0]["d"])

    def initial(self, name: str, param: Tensor) -> Tensor:
        """Return a moment's value before the first step: p0 is where the weights are."""
        if name == "p0":
            return param.detach().to(full_dtype(param.dtype), copy=True, memory_format=torch.preserve_format)
        return super().initial(name, param)


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


def _ratio(group: dict[str, Any], num: float, size: float) -> float:
    # Gradients that were all 0 so far say nothing about the distance.
    return group["d_coef"] * num / size if size else 0.0


def _correction(group: dict[str, Any], step: int) -> float:
    if not group["bias_correction"]:
        return 1.0
    beta1, beta2 = group["betas"]
    return math.sqrt(1 - beta2**step) / (1 - beta1**step)


def _total(ops: Ops, values: Operand, *, absolute: bool = False) -> Tensor:
    """Return the sum of all elements, or of their sizes; that of a distributed tensor is of the whole."""
    if ops is ListOps:
        return full_sum([value.abs() for value in values] if absolute else values).double()
    return (torch.linalg.vector_norm(values, 1) if absolute else values.sum()).double()


def _check(group: dict[str, Any]) -> None:
    allowed = {
        "beta3": (lambda x: x is None or 0 <= x < 1, "a number of at least 0 and below 1, or none"),
        "eps": (lambda x: x > 0, "a number above 0"),
        "d0": (lambda x: 0 < x < math.inf, "a number above 0"),
        "d_coef": (lambda x: 0 < x < math.inf, "a number above 0"),
        "growth_rate": (lambda x: x is None or x >= 1, "a number of at least 1, or none"),
    }
    for key, (holds, text) in allowed.items():
        if not holds(group[key]):
            raise OptimizerError(f"Prodigy: {key} = {group[key]}", why=f"{key} takes {text}")

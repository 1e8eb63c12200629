"""Prodigy: Adam that estimates its learning rate from how far the weights have come."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.optim.optimizer import ParamsT
from trainkit import hookimpl
from trainkit.optim import ElementwiseOptimizer, OptimizerError
from trainkit.optim.base import closure_loss, full_dtype, plain_step
from trainkit.optim.blocks import AnyBlock, Part, Scratch, WholeBlock, parts_of
from trainkit.optim.checks import Beta
from trainkit.optim.norms import full_sum
from trainkit.optim.ops import Operand, TensorOps

from .formulas import estimated, move_

if TYPE_CHECKING:
    from trainkit.live import Run

Growth = Annotated[float, Field(ge=1)]
WIDER = 4
SHARED = ("beta3", "d0", "d_coef", "growth_rate")
ESTIMATE = ("d", "d_max", "num")


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
                for ops, p, g, moments, work in wide_parts(block, self.scratch, flip=group["maximize"]):
                    move_(ops, p, g, moments, work, lr, d, group)
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
        """Take the gradients of a block into s; return <g, p0 - p> and |s|_1 over it, in double precision."""
        products, sizes = [], []
        for ops, p, g, (p0, s, *_), work in wide_parts(block, self.scratch, flip=group["maximize"], keep=True):
            products.append(_product(ops.add(p0, p, alpha=-1.0, out=work[0]), g))
            ops.mul_(s, beta3)
            ops.add_(s, g, alpha=weight)
            sizes.append(_size(s, work[0]))
        return torch.stack(products).double().sum(), torch.stack(sizes).double().sum()

    @hookimpl
    def on_step(self, run: Run) -> None:
        """Log the estimate."""
        run.record("train/d", self.param_groups[0]["d"])

    def initial(self, name: str, param: Tensor) -> Tensor:
        """Return a moment's value before the first step: p0 is where the weights are."""
        if name == "p0":
            return param.detach().to(full_dtype(param.dtype), copy=True, memory_format=torch.preserve_format)
        return super().initial(name, param)


def wide_parts(block: AnyBlock, scratch: Scratch, *, flip: bool, keep: bool = False) -> Iterator[Part]:
    """Yield the parts of a block as `parts_of` does with one scratch tensor, those of one large tensor in wider pieces.

    With seven rows to walk at once, short pieces of each cost more than what stays in the cache saves.
    """
    row = block.gradient_row() if isinstance(block, WholeBlock) else None
    if not isinstance(block, WholeBlock) or row is None or flip or not row.dtype == block.dtype == block.full:
        yield from parts_of(block, scratch, 1, flip=flip, keep=keep)
        return
    rows = (r.split(WIDER * block.piece) for r in (block.flat, row, *block.flat_moments))
    for p, g, *moments in zip(*rows, strict=True):
        yield TensorOps, p, g, tuple(moments), scratch.lend(block.full, len(p), 1)


def _ratio(group: dict[str, Any], num: float, size: float) -> float:
    # Gradients that were all 0 so far say nothing about the distance.
    return group["d_coef"] * num / size if size else 0.0


def _correction(group: dict[str, Any], step: int) -> float:
    if not group["bias_correction"]:
        return 1.0
    beta1, beta2 = group["betas"]
    return math.sqrt(1 - beta2**step) / (1 - beta1**step)


def _product(apart: Operand, g: Operand) -> Tensor:
    """Return <g, apart>, of whole tensors where they are distributed; `apart` is overwritten."""
    if isinstance(apart, Tensor):
        return torch.dot(apart, g)
    torch._foreach_mul_(apart, g)
    return full_sum(apart)


def _size(s: Operand, work: Operand) -> Tensor:
    """Return |s|_1, of whole tensors where they are distributed; `work` is overwritten."""
    if isinstance(s, Tensor):
        # A third of the time of PyTorch's norm, which is quick for squares alone.
        return torch.abs(s, out=work).sum()
    return full_sum(torch._foreach_abs(s))


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

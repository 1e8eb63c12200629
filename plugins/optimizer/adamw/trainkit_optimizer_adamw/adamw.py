"""AdamW by the fastest implementation PyTorch has for the parameters at hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.optim.optimizer import ParamsT

Beta = Annotated[float, Field(ge=0, lt=1)]
FUSED_DEVICES = ("cpu", "cuda")


def supports_fused(tensors: Iterable[Tensor]) -> bool:
    """Say whether one fused kernel can update all of these: floating point, on the CPU or on CUDA."""
    return all(tensor.is_floating_point() and tensor.device.type in FUSED_DEVICES for tensor in tensors)


def parameters_of(params: Iterable[Any]) -> list[Tensor]:
    """Return the tensors of what an optimizer takes: tensors, (name, tensor) pairs, or groups of either."""
    found: list[Tensor] = []
    for item in params:
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, dict):
            members = item["params"]
            found += parameters_of([members] if isinstance(members, Tensor) else members)
        else:
            found.append(item[1])
    return found


class AdamW(torch.optim.AdamW):
    """Adapt the step of each weight by the first two moments of its gradient; decay weights apart from that.

    m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, p <- p (1 - lr wd) - lr m^ / (sqrt(v^) + eps), with ^ the bias
    correction. It is the default against which the others are measured. `torch.optim.AdamW` does the work: fused on the
    CPU and on CUDA, multi-tensor elsewhere. Moments take 8 bytes per float32 parameter.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        betas: decay of the first and of the second moment, per step.
        eps: added to the denominator.
        weight_decay: share of a weight, times lr, that is taken away in each step.

    Source: Loshchilov and Hutter 2017, arXiv 1711.05101 [paper].
    """

    def __init__(
        self,
        params: ParamsT,
        lr: PositiveFloat = 1e-3,
        betas: tuple[Beta, Beta] = (0.9, 0.999),
        eps: NonNegativeFloat = 1e-8,
        weight_decay: NonNegativeFloat = 1e-2,
    ) -> None:
        items = list(params)
        fused = supports_fused(parameters_of(items))
        super().__init__(
            items, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused, foreach=None if fused else True
        )

    # PyTorch's own step is wrapped for compiled and differentiable optimizers, and the wrapper imports the compiler at
    # the first step. The plain function below it does the work.
    step = torch.no_grad()(getattr(torch.optim.AdamW.step, "__wrapped__", torch.optim.AdamW.step))

"""Elementwise operations on one tensor or on a list of tensors, under the same names.

An update is written once, against these names: on the CPU it walks pieces that stay in the cache and reuses scratch
memory; on other devices it takes whole lists, one group of kernels for each operation. An operand is a tensor, or a
list of tensors; the two never meet in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Operand = Any


class TensorOps:
    """Work on one tensor. Operations that end in `_` change their first operand; the others write into `out`."""

    add = staticmethod(torch.add)
    mul = staticmethod(torch.mul)
    div = staticmethod(torch.div)
    lerp = staticmethod(torch.lerp)
    sqrt = staticmethod(torch.sqrt)
    add_ = staticmethod(Tensor.add_)
    mul_ = staticmethod(Tensor.mul_)
    div_ = staticmethod(Tensor.div_)
    copy_ = staticmethod(Tensor.copy_)
    lerp_ = staticmethod(Tensor.lerp_)
    sign_ = staticmethod(Tensor.sign_)
    clamp_min_ = staticmethod(Tensor.clamp_min_)
    addcmul_ = staticmethod(Tensor.addcmul_)
    addcdiv_ = staticmethod(Tensor.addcdiv_)

    @staticmethod
    def clamp_(a: Tensor, low: float, high: float) -> None:
        """Bring every element into [low, high]."""
        a.clamp_(low, high)

    @staticmethod
    def maximum_(a: Tensor, b: Tensor) -> None:
        """Take the larger of two elements."""
        torch.maximum(a, b, out=a)


class ListOps:
    """Work on a list of tensors by PyTorch's multi-tensor functions; `out` is not used, results are new tensors."""

    add_ = staticmethod(torch._foreach_add_)
    mul_ = staticmethod(torch._foreach_mul_)
    div_ = staticmethod(torch._foreach_div_)
    lerp_ = staticmethod(torch._foreach_lerp_)
    sign_ = staticmethod(torch._foreach_sign_)
    clamp_min_ = staticmethod(torch._foreach_clamp_min_)
    addcmul_ = staticmethod(torch._foreach_addcmul_)
    addcdiv_ = staticmethod(torch._foreach_addcdiv_)
    maximum_ = staticmethod(torch._foreach_maximum_)

    @staticmethod
    def copy_(a: Operand, b: Operand) -> None:
        """Copy a list into another, shard by shard: PyTorch has no multi-tensor copy of distributed tensors."""
        torch._foreach_copy_(_local(a), _local(b))

    @staticmethod
    def add(a: Operand, b: Operand, *, alpha: float = 1.0, out: object = None) -> Operand:
        """Return a + alpha b."""
        return torch._foreach_add(a, b, alpha=alpha)

    @staticmethod
    def mul(a: Operand, b: Operand, *, out: object = None) -> Operand:
        """Return a b, with b a number or a list."""
        return torch._foreach_mul(a, b)

    @staticmethod
    def div(a: Operand, b: Operand, *, out: object = None) -> Operand:
        """Return a / b, with b a number or a list."""
        return torch._foreach_div(a, b)

    @staticmethod
    def lerp(a: Operand, b: Operand, weight: float, *, out: object = None) -> Operand:
        """Return a + weight (b - a)."""
        return torch._foreach_lerp(a, b, weight)

    @staticmethod
    def sqrt(a: Operand, *, out: object = None) -> Operand:
        """Return the square roots."""
        return torch._foreach_sqrt(a)

    @staticmethod
    def clamp_(a: Operand, low: float, high: float) -> None:
        """Bring every element into [low, high]."""
        torch._foreach_clamp_min_(a, low)
        torch._foreach_clamp_max_(a, high)


def _local(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]


Ops = type[TensorOps] | type[ListOps]

"""Norms of whole tensors, whatever they are spread over."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .base import full_dtype


def whole(value: Tensor) -> Tensor:
    """Return a value that every rank has: a distributed result is reduced over its ranks, any other one is itself."""
    gather = getattr(value, "full_tensor", None)
    return value if gather is None else gather()


def full_norms(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of each tensor [tensors]; a distributed tensor's is that of the whole."""
    return torch.stack([whole(norm) for norm in torch._foreach_norm(list(tensors))])


def full_sum(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of all elements of all tensors; a distributed tensor counts whole."""
    return torch.stack([whole(tensor.sum()) for tensor in tensors]).sum()


def total_norm(tensors: Sequence[Tensor]) -> float:
    """Return the Euclidean norm of all elements of all tensors, on any devices; a distributed tensor counts whole."""
    alike: dict[tuple[type, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        # Squares of half precision leave its range.
        alike.setdefault((type(tensor), tensor.device), []).append(tensor.to(full_dtype(tensor.dtype)))
    return math.hypot(*(float(torch.linalg.vector_norm(full_norms(group))) for group in alike.values()))

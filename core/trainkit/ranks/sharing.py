"""Gradients of several ranks, each of its share of a window, made the gradient of the whole window on each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from trainkit.errors import UsageError

from .world import World, speaking

if TYPE_CHECKING:
    from torch import Tensor

    from trainkit.live import Run

BUCKET_BYTES = 25 * 2**20


def sum_gradients(world: World, parameters: Sequence[Tensor], has_gradient: Sequence[bool]) -> None:
    """Sum gradients over all ranks, in place, to the same bits on each.

    Args:
        world: which rank this is.
        parameters: the same ones in the same order on each rank.
        has_gradient: which of them have a gradient on any rank; a rank that has none of it adds zeros.
    """
    gradients: list[Tensor] = []
    for parameter, is_there in zip(parameters, has_gradient, strict=True):
        # Sharded gradients are sums over all ranks already.
        if not is_there or hasattr(parameter, "full_tensor"):
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    if world.is_alone:
        return
    for bucket in buckets(gradients, BUCKET_BYTES):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        with speaking():
            torch.distributed.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in bucket])
        torch._foreach_copy_(bucket, [part.view_as(g) for part, g in zip(parts, bucket, strict=True)])


def buckets(tensors: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Group tensors, in their order, into buckets of one type and of about so many bytes: one message each."""
    bucket: list[Tensor] = []
    filled = 0
    for tensor in tensors:
        if bucket and (filled >= size or (tensor.dtype, tensor.device) != (bucket[0].dtype, bucket[0].device)):
            yield bucket
            bucket, filled = [], 0
        bucket.append(tensor)
        filled += tensor.nbytes
    if bucket:
        yield bucket


def check_dense(run: Run) -> None:
    """Raise UsageError for a module whose gradients are sparse: they cannot be summed with those of other ranks."""
    for name, module in run.model.named_modules():
        if not run.world.is_alone and getattr(module, "sparse", False):
            raise UsageError(
                f"the gradients of {name} are sparse, and several ranks need dense ones",
                do="build it with sparse=False, or train on one device: --devices 1",
            )


def copy_from_first(world: World, tensors: Iterable[Tensor]) -> None:
    """Put into tensors, in place, what they hold on rank 0: running statistics, or weights."""
    if world.is_alone:
        return
    for tensor in tensors:
        with speaking():
            torch.distributed.broadcast(tensor, 0)


def share_buffers(run: Run) -> None:
    """Give every rank the buffers of rank 0, as running statistics: an evaluation and a checkpoint begin with it."""
    copy_from_first(run.world, [*run.model.buffers(), *run.loss.buffers()])

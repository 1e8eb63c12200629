"""Blocks: sets of parameters that step together, laid out so that a step is quick.

- `FlatBlock`: many small tensors on the CPU become views of one flat buffer, so that a step costs a few operations, not
  a few for each tensor. Gradients are gathered into one row by as few calls as their shapes allow.
- `WholeBlock`: one large tensor on the CPU, where it lies; it is walked in pieces that stay in the cache.
- `ListBlock`: everything else (another device, distributed or strided tensors), by multi-tensor functions.

The moments of a block lie as its parameters do, and `optimizer.state` shows them in the shapes of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .base import full_dtype
from .ops import ListOps, Operand, Ops, TensorOps

PIECE = 32_768
SMALL = 16_384
MIN_RUN = 4

Part = tuple[Ops, Operand, Operand, tuple[Operand, ...], tuple[Operand, ...]]
"""Operations, parameters, gradients, moments and scratch memory of one part of a block, all of the full dtype."""


Gather = Callable[[list[Tensor | None]], None]


def piece_length() -> int:
    """Return how many elements a piece has: as many for each thread as stay in its cache."""
    return PIECE * torch.get_num_threads()


def is_dense(tensor: Tensor) -> bool:
    """Say whether a tensor is an ordinary contiguous floating-point tensor on the CPU."""
    ordinary = type(tensor) in (Tensor, torch.nn.Parameter)
    return ordinary and tensor.device.type == "cpu" and tensor.is_floating_point() and tensor.is_contiguous()


def may_move(tensor: Tensor) -> bool:
    """Say whether a small tensor may become a view of a flat buffer: nothing else uses its memory."""
    owned: int = tensor.untyped_storage().nbytes()
    return is_dense(tensor) and not tensor.is_shared() and owned == tensor.numel() * tensor.element_size()


class Scratch:
    """Lend memory that every step, block and piece uses again, so that it stays in the cache."""

    def __init__(self) -> None:
        self._rows: dict[torch.dtype, list[Tensor]] = {}
        self._lent: dict[tuple[torch.dtype, int], tuple[Tensor, ...]] = {}
        self._directions: dict[torch.dtype, Tensor] = {}

    def lend(self, dtype: torch.dtype, length: int, count: int) -> tuple[Tensor, ...]:
        """Return that many tensors [length]; what was lent before is not to be used any more."""
        lent = self._lent.get((dtype, length), ())
        if len(lent) < count:
            rows = self._rows.setdefault(dtype, [])
            while len(rows) < count:
                rows.append(torch.empty(0, dtype=dtype))
            for number, row in enumerate(rows):
                rows[number] = _at_least(row, length)
            lent = self._lent[dtype, length] = tuple(row[:length] for row in rows)
        return lent[:count]

    def direction(self, dtype: torch.dtype, length: int) -> Tensor:
        """Return memory for the direction of a whole block; it grows to the largest."""
        held = self._directions[dtype] = _at_least(self._directions.get(dtype, torch.empty(0, dtype=dtype)), length)
        return held[:length]


def _at_least(row: Tensor, length: int) -> Tensor:
    return row if len(row) >= length else row.new_empty(length)


class Block:
    """Hold parameters that have had the same number of steps.

    Attributes:
        params: the parameters.
        count: how many steps they have had.
        clock: the same as a tensor, shared by the states of all of them.
    """

    def __init__(self, params: Sequence[Tensor], count: int) -> None:
        self.params = list(params)
        self.count = count
        self.clock = torch.tensor(float(count))
        self.dtype = params[0].dtype
        self.full = full_dtype(self.dtype)
        self.addresses = self._addresses()

    def _addresses(self) -> list[int]:
        return list(map(Tensor.data_ptr, self.params))

    def in_place(self) -> bool:
        """Say whether every parameter still lies where it lay."""
        return self._addresses() == self.addresses

    def missing(self) -> list[Tensor]:
        """Return the parameters without a gradient."""
        return [p for p in self.params if p.grad is None]

    def tick(self) -> None:
        """Count a step."""
        self.count += 1
        self.clock.fill_(self.count)

    def release(self) -> None:
        """Give parameters memory of their own again, where the block took it."""


class ListBlock(Block):
    """Step tensors of any device and layout as lists."""

    def __init__(self, params: Sequence[Tensor], moments: Sequence[Sequence[Tensor]], count: int) -> None:
        super().__init__(params, count)
        self.moments = tuple(list(tensors) for tensors in moments)

    def _addresses(self) -> list[int]:
        # A distributed tensor has no address of its own, and nothing here depends on it.
        return []

    def moments_of(self, number: int) -> list[Tensor]:
        """Return the moments of one parameter."""
        return [tensors[number] for tensors in self.moments]

    def parts(self, needed: int, *, flip: bool) -> Iterator[Part]:
        """Yield the whole block as one part; half precision works on copies in full precision, and is rounded last."""
        grads: Any = [p.grad for p in self.params]
        params: Any = self.params
        if self.full != self.dtype:
            params = [p.to(self.full) for p in params]
        if self.full != self.dtype or any(g.dtype != self.full for g in grads):
            grads = [g.to(self.full) for g in grads]
        if flip:
            grads = torch._foreach_neg(grads)
        yield ListOps, params, grads, self.moments, (None,) * needed
        if self.full != self.dtype:
            ListOps.copy_(self.params, params)


class WholeBlock(Block):
    """Step one large tensor in pieces, where it lies."""

    def __init__(self, param: Tensor, moments: Sequence[Tensor], count: int) -> None:
        super().__init__([param], count)
        self.shaped = list(moments)
        self.piece = piece_length()
        self.flat = param.detach().view(-1)
        self.length = len(self.flat)
        self.sizes = [self.length]
        self.flat_moments = [moment.view(-1) for moment in moments]
        rows = [row.split(self.piece) for row in (self.flat, *self.flat_moments)]
        self.pieces = [(row[0], tuple(row[1:])) for row in zip(*rows, strict=True)]

    def moments_of(self, number: int) -> list[Tensor]:
        """Return the moments of the parameter."""
        return self.shaped

    def gradient_row(self) -> Tensor:
        """Return the gradient as one row, in the dtype it has."""
        gradient = self.params[0].grad
        assert gradient is not None
        return gradient.reshape(-1)

    def subtract_(self, row: Tensor, factors: Tensor, share: float) -> None:
        """Subtract factors [1] x row, and a share of the parameter itself, from the parameter; `row` is overwritten."""
        if share:
            self.flat.sub_(row.mul_(factors).add_(self.flat, alpha=share))
        else:
            self.flat.add_(row, alpha=-float(factors))


class FlatBlock(Block):
    """Step many small tensors as one: they become views of one flat buffer, in the order of their shapes."""

    def __init__(self, params: Sequence[Tensor], moments: Sequence[Sequence[Tensor]], count: int) -> None:
        super().__init__(params, count)
        self.sizes = [p.numel() for p in self.params]
        self.length = self.piece = sum(self.sizes)
        self.flat = torch.cat([p.detach().reshape(-1) for p in self.params])
        self.flat_moments = [torch.cat([m.reshape(-1) for m in tensors]) for tensors in moments]
        self.pieces = [(self.flat, tuple(self.flat_moments))]
        views = [self._views(moment) for moment in self.flat_moments]
        self.shaped = [list(row) for row in zip(*views, strict=True)] if views else [[] for _ in self.params]
        for p, view in zip(self.params, self._views(self.flat), strict=True):
            p.data = view
        self.addresses = self._addresses()
        self.lengths = torch.tensor(self.sizes)
        self.gathered = torch.empty(self.length, dtype=self.full)
        self._gathers = gatherers(self.params, self.gathered, self.sizes)

    def _views(self, flat: Tensor) -> list[Tensor]:
        return [part.view(p.shape) for part, p in zip(flat.split(self.sizes), self.params, strict=True)]

    def moments_of(self, number: int) -> list[Tensor]:
        """Return the moments of one parameter: views of the flat buffers."""
        return self.shaped[number]

    def release(self) -> None:
        """Give every parameter memory of its own again."""
        for p, address in zip(self.params, self.addresses, strict=True):
            if p.data_ptr() == address:
                p.data = p.detach().clone()

    def missing(self) -> list[Tensor]:
        """Return the parameters without a gradient; gather the gradients where there is none."""
        grads = [p.grad for p in self.params]
        try:
            for gather in self._gathers:
                gather(grads)
        except (TypeError, RuntimeError):
            # Looking for a gradient that is missing, among a thousand, would cost more than gathering them all.
            if missing := super().missing():
                return missing
            raise
        return []

    def gradient_row(self) -> Tensor:
        """Return all gradients as one row of the full dtype, as `missing` gathered them."""
        return self.gathered

    def norms(self, row: Tensor) -> Tensor:
        """Return the norms of the segments of a row that lies as the parameters do [parameters]."""
        squares = row.to(self.full).square()
        return torch.segment_reduce(squares, "sum", lengths=self.lengths, unsafe=True).sqrt_()

    def subtract_(self, row: Tensor, factors: Tensor, share: float) -> None:
        """Subtract factors [parameters] x row, and a share of the parameters themselves; `row` is overwritten."""
        row.mul_(torch.repeat_interleave(factors, self.lengths, output_size=self.length))
        if share:
            row.add_(self.flat, alpha=share)
        self.flat.sub_(row)


AnyBlock = FlatBlock | WholeBlock | ListBlock


def gatherers(params: Sequence[Tensor], out: Tensor, sizes: Sequence[int]) -> list[Gather]:
    """Return the calls that copy a list of gradients into one row.

    Neighbours that differ in their first dimension alone are concatenated by one call; single ones are copied.
    """
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    calls: list[Gather] = []
    rest: list[tuple[int, Tensor]] = []
    start = 0
    while start < len(params):
        end = start + 1
        while end < len(params) and params[end].ndim == params[start].ndim and _same_rows(params[start], params[end]):
            end += 1
        row = out[ends[start] : ends[end]]
        if params[start].ndim and end - start >= MIN_RUN:
            calls.append(_concatenation(start, end, row.view(-1, *params[start].shape[1:])))
        else:
            rest += [(i, out[ends[i] : ends[i + 1]].view(params[i].shape)) for i in range(start, end)]
        start = end
    if rest:
        calls.append(_copies([i for i, _ in rest], [view for _, view in rest]))
    return calls


def _same_rows(a: Tensor, b: Tensor) -> bool:
    return a.shape[1:] == b.shape[1:]


def _concatenation(start: int, end: int, out: Tensor) -> Gather:
    def gather(grads: list[Tensor | None]) -> None:
        torch.cat(grads[start:end], out=out)  # type: ignore[arg-type]

    return gather


def _copies(numbers: list[int], views: list[Tensor]) -> Gather:
    def gather(grads: list[Tensor | None]) -> None:
        torch._foreach_copy_(views, [grads[i] for i in numbers])  # type: ignore[misc]

    return gather


def parts_of(block: AnyBlock, scratch: Scratch, needed: int, *, flip: bool, keep: bool = False) -> Iterator[Part]:
    """Yield the parts of a block; half precision works on copies in full precision, and is rounded last.

    Args:
        block: the block; each of its parameters has a gradient.
        scratch: where memory is borrowed.
        needed: how many scratch tensors a part is to have.
        flip: give the gradients with the opposite sign.
        keep: the parameters are only read, so nothing is rounded back.
    """
    if isinstance(block, ListBlock):
        yield from block.parts(needed, flip=flip)
        return
    half = block.full != block.dtype
    gradient = block.gradient_row()
    for (param, moments), g in zip(block.pieces, gradient.split(block.piece), strict=True):
        *work, full_p, full_g = scratch.lend(block.full, len(param), needed + 2)
        if flip:
            g = torch.neg(g, out=full_g) if g.dtype == block.full else full_g.copy_(g).neg_()
        elif g.dtype != block.full:
            g = full_g.copy_(g)
        if not half:
            yield TensorOps, param, g, moments, tuple(work)
            continue
        full_p.copy_(param)
        yield TensorOps, full_p, g, moments, tuple(work)
        if not keep:
            param.copy_(full_p)

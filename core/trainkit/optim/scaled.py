"""Optimizers that compute a direction element by element, then scale it tensor by tensor by norms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .blocks import AnyBlock, FlatBlock, ListBlock, WholeBlock, parts_of
from .compiled import compiled_direction
from .elementwise import ElementwiseOptimizer, numbers_tensor
from .norms import full_norms
from .ops import Operand, Ops


class ScaledOptimizer(ElementwiseOptimizer):
    """Step each tensor along a direction, by a length that depends on norms of the whole tensor.

    A subclass gives `direction` in place of `update`, `lengths`, and a `formula` (p, g, *moments, *numbers) ->
    (direction, *moments). Norms of a distributed tensor are those of the whole, not of the shard.

    Attributes:
        measure: what `lengths` is given of each tensor: its Euclidean norm, or its root mean square.
    """

    measure: Literal["norm", "rms"] = "norm"

    @abstractmethod
    def direction(
        self,
        ops: Ops,
        out: Operand,
        p: Operand,
        g: Operand,
        moments: Sequence[Operand],
        work: Sequence[Operand],
        *numbers: float,
    ) -> Operand:
        """Return the direction, in `out` or not; change moments in place, `p` and `g` stay as they are."""
        raise NotImplementedError

    @abstractmethod
    def lengths(self, group: dict[str, Any], step: int, weights: Tensor, directions: Tensor) -> Tensor:
        """Return the factor of each tensor's direction; it is then subtracted from the parameters.

        Args:
            group: the parameter group.
            step: the step, from 1.
            weights: norms of the parameters [tensors].
            directions: norms of their directions [tensors].
        """
        raise NotImplementedError

    def decay(self, group: dict[str, Any]) -> float:
        """Return the share of the weights that a step takes away beside the direction: none."""
        return 0.0

    def step_block(self, block: AnyBlock, group: dict[str, Any], numbers: tuple[float, ...]) -> None:
        """Step one block."""
        if isinstance(block, ListBlock):
            self._step_list(block, group, numbers)
            return
        out = self.scratch.direction(block.full, block.length)
        if self.compiled:
            weights, directions = self._run(block, group, numbers, out)
        else:
            weights, directions = self._write_direction(block, group, numbers, out)
        factors = self._factors(group, block.count, weights, directions, block.sizes)
        block.subtract_(out, factors.to(out.dtype), self.decay(group))

    def _factors(
        self, group: dict[str, Any], step: int, weights: Tensor, directions: Tensor, sizes: Sequence[int]
    ) -> Tensor:
        if self.measure == "rms":
            roots = torch.tensor(sizes, dtype=directions.dtype, device=directions.device).sqrt_()
            weights, directions = weights / roots, directions / roots
        return self.lengths(group, step, weights, directions)

    def _write_direction(
        self, block: FlatBlock | WholeBlock, group: dict[str, Any], numbers: tuple[float, ...], out: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows = out.split(block.piece)
        parts = parts_of(block, self.scratch, self.scratches, flip=group["maximize"], keep=True)
        norms = []
        for row, (ops, p, g, moments, work) in zip(rows, parts, strict=True):
            self.direction(ops, row, p, g, moments, work, *numbers)
            # Piece by piece, while it is in the cache: a float32 sum over millions of elements would lose digits too.
            if isinstance(block, WholeBlock):
                norms.append(torch.stack([torch.linalg.vector_norm(p), torch.linalg.vector_norm(row)]))
        if isinstance(block, FlatBlock):
            return block.norms(block.flat), block.norms(out)
        weights, directions = torch.stack(norms).norm(dim=0).split(1)
        return weights, directions

    def _run(
        self, block: FlatBlock | WholeBlock, group: dict[str, Any], numbers: tuple[float, ...], out: Tensor
    ) -> tuple[Tensor, Tensor]:
        kernel = compiled_direction(self.formula, block.dtype, len(self.moments), len(numbers))
        gradient = self.gradient_row(block, group)
        squares = kernel([block.flat, gradient, *block.flat_moments, numbers_tensor(numbers), out])
        if isinstance(block, FlatBlock):
            return block.norms(block.flat), block.norms(out)
        weights, directions = (square.sqrt().reshape(1) for square in squares)
        return weights, directions

    def _step_list(self, block: ListBlock, group: dict[str, Any], numbers: tuple[float, ...]) -> None:
        parts = parts_of(block, self.scratch, self.scratches, flip=group["maximize"])
        for ops, p, g, moments, work in parts:
            out = self.direction(ops, None, p, g, moments, work, *numbers)
            factors = self._factors(group, block.count, full_norms(p), full_norms(out), [t.numel() for t in p])
            torch._foreach_mul_(out, list(factors.unbind()))
            if share := self.decay(group):
                torch._foreach_add_(out, p, alpha=share)
            torch._foreach_sub_(p, out)

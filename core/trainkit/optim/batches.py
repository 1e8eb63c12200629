"""Batches: parameters side by side, for optimizers that need each tensor as the matrix it is.

- `Stack`: tensors of one shape become one tensor with a leading dimension, so that a step costs a few operations.
- `Row`: tensors of any shapes become one flat tensor, with sums over their segments.

States live in the batch, and `optimizer.state` shows each parameter's share of them. Parameters and gradients stay
where they are: they are gathered for the step and written back. A distributed tensor is gathered whole, so that means
and norms are those of the whole matrix; each rank holds its whole state and writes back its shard.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .base import full_dtype
from .blocks import piece_length
from .checks import check_gradients
from .norms import whole

ELSEWHERE = 1 << 22

States = dict[str, Tensor]


class Batch(ABC):
    """Hold parameters that step together, and their states.

    Attributes:
        params: the parameters.
        count: how many steps they have had.
        clock: the same as a tensor, shared by the states of all of them.
        states: what the optimizer keeps, by name, joined.
    """

    def __init__(self, params: Sequence[Tensor], count: int) -> None:
        self.params = list(params)
        self.count = count
        self.clock = torch.tensor(float(count))
        self.full = full_dtype(params[0].dtype)
        self.distributed = hasattr(params[0], "device_mesh")
        self.states: States = {}

    @abstractmethod
    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return tensors, one for each parameter, as one; a view where there is one tensor that allows it."""

    @abstractmethod
    def parts(self, joined: Tensor) -> Sequence[Tensor]:
        """Return views of what was joined, one for each parameter."""

    @abstractmethod
    def root_mean_squares(self, joined: Tensor) -> Tensor:
        """Return the root mean square of each parameter's part [parameters]."""

    @abstractmethod
    def spread(self, values: Tensor) -> Tensor:
        """Return one value for each parameter in a shape that broadcasts over what was joined."""

    def tick(self) -> None:
        """Count a step."""
        self.count += 1
        self.clock.fill_(self.count)

    def gradients(self, *, flip: bool = False) -> Tensor:
        """Return the gradients as one tensor of the full dtype, only to be read; `flip` gives the opposite sign."""
        joined = self._joined([p.grad for p in self.params if p.grad is not None])
        return joined.neg() if flip else joined

    def weights(self) -> Tensor:
        """Return the parameters as one tensor of the full dtype, to be changed and given to `write`."""
        return self._joined(self.params)

    def write(self, weights: Tensor) -> None:
        """Write back what `weights` gave, rounded to the dtype of the parameters."""
        if self.distributed:
            for p, part in zip(self.params, self.parts(weights), strict=True):
                p.copy_(_shard(part, p))
        elif len(self.params) > 1 or weights.data_ptr() != self.params[0].data_ptr():
            torch._foreach_copy_(self.params, list(self.parts(weights)))

    def _joined(self, tensors: list[Tensor]) -> Tensor:
        return self.join([whole(t) for t in tensors] if self.distributed else tensors).to(self.full)


class Stack(Batch):
    """Parameters of one shape as [parameters, *shape]."""

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return [parameters, *shape]."""
        return torch.stack(list(tensors)) if len(tensors) > 1 else tensors[0].unsqueeze(0)

    def parts(self, joined: Tensor) -> Sequence[Tensor]:
        """Return the rows of the leading dimension."""
        return joined.unbind()

    def root_mean_squares(self, joined: Tensor) -> Tensor:
        """Return the root mean square of each row of the leading dimension."""
        flat = joined.flatten(1)
        norms: Tensor = torch.linalg.vector_norm(flat, dim=1)
        return norms / math.sqrt(flat.shape[1])

    def spread(self, values: Tensor) -> Tensor:
        """Return [parameters, 1, ...]."""
        return values.view(-1, *[1] * self.params[0].ndim)


class Row(Batch):
    """Parameters of any shapes as one flat tensor [elements]."""

    def __init__(self, params: Sequence[Tensor], count: int) -> None:
        super().__init__(params, count)
        self.sizes = [p.numel() for p in self.params]
        self.lengths = torch.tensor(self.sizes, device=self.params[0].device)

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return [elements]."""
        rows = [t if t.ndim == 1 else t.reshape(-1) for t in tensors]
        return torch.cat(rows) if len(rows) > 1 else rows[0]

    def parts(self, joined: Tensor) -> Sequence[Tensor]:
        """Return the segments in the shapes of the parameters."""
        parts = joined.split(self.sizes)
        return [part if p.ndim == 1 else part.view(p.shape) for part, p in zip(parts, self.params, strict=True)]

    def root_mean_squares(self, joined: Tensor) -> Tensor:
        """Return the root mean square of each segment."""
        sums = torch.segment_reduce(joined.square(), "sum", lengths=self.lengths, unsafe=True)
        return sums.div_(self.lengths).sqrt_()

    def spread(self, values: Tensor) -> Tensor:
        """Return [elements]."""
        return torch.repeat_interleave(values, self.lengths, output_size=sum(self.sizes))


class Batches:
    """Keep the batches of one parameter group; they are built anew when other parameters have gradients.

    Args:
        label: the optimizer's name in messages.
        state: the optimizer's state.
        initial: returns a parameter's states before its first step, by name.
        in_rows: says which parameters are joined to rows; the others are stacked.
    """

    def __init__(
        self,
        label: str,
        state: MutableMapping[Tensor, Any],
        initial: Callable[[Tensor], States],
        in_rows: Callable[[Tensor], bool] = lambda p: p.ndim < 2,
    ) -> None:
        self._label, self._state, self._initial, self._in_rows = label, state, initial, in_rows
        self._numbers: list[int] = []
        self._batches: list[Batch] = []

    def ready(self, params: Iterable[Tensor]) -> list[Batch]:
        """Return the batches to step: together they hold every parameter that has a gradient and any elements.

        Raises:
            OptimizerError: a gradient is sparse or complex.
        """
        found = [p for p in params if p.grad is not None]
        numbers = list(map(id, found))
        if numbers != self._numbers:
            check_gradients(self._label, found)
            self._batches = [self._built(*chosen) for chosen in self._chosen(p for p in found if p.numel())]
            self._numbers = numbers
        return self._batches

    def _chosen(self, params: Iterable[Tensor]) -> Iterable[tuple[list[Tensor], int]]:
        """Yield lists of parameters that join to one batch, none of them much longer than a piece, with their count."""
        last: dict[object, tuple[list[Tensor], int, int]] = {}
        for p in params:
            count = int(self._state[p].get("step", 0))
            key = (count, p.device, p.dtype, hasattr(p, "device_mesh"), None if self._in_rows(p) else p.shape)
            chosen, _, length = last.get(key, ([], 0, 0))
            if chosen and length + p.numel() > (piece_length() if p.device.type == "cpu" else ELSEWHERE):
                yield chosen, count
                chosen, length = [], 0
            chosen.append(p)
            last[key] = (chosen, count, length + p.numel())
        yield from ((chosen, count) for chosen, count, _ in last.values())

    def _built(self, params: list[Tensor], count: int) -> Batch:
        batch = Row(params, count) if self._in_rows(params[0]) else Stack(params, count)
        kept = [dict(self._state[p]) or self._initial(p) for p in params]
        for p in params:
            self._state[p]["step"] = batch.clock
        for name in kept[0].keys() - {"step"}:
            batch.states[name] = batch.join([states[name] for states in kept])
            for p, part in zip(params, batch.parts(batch.states[name]), strict=True):
                self._state[p][name] = part
        return batch


def _shard(value: Tensor, like: Any) -> Tensor:
    """Return a value that every rank has as a distributed tensor that lies as another one."""
    from torch.distributed.tensor import distribute_tensor

    shard: Tensor = distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return shard

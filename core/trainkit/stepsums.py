"""What a component tracks about its own values: summed over the micro-batches of a step and over all ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from .ranks.world import World

if TYPE_CHECKING:
    from torch import Tensor

SumAndCount = tuple["Tensor", "Tensor"]


class StepSums:
    """Sum values over the micro-batches of one optimizer step, so that what is tracked advances once a step.

    A loss puts down what it measured in `forward`, calls `keep` when it hears `on_loss` and `take` when it hears
    `on_step`. A forward pass that is no micro-batch of the step, as one for a curvature, is thus not counted, nor is a
    window whose update was skipped. Between steps nothing is held, so there is nothing to save.
    """

    def __init__(self) -> None:
        self._put: dict[str, SumAndCount] = {}
        self._kept: dict[str, SumAndCount] = {}
        self._window: int | None = None

    def put(self, values: Mapping[str, tuple[Tensor, Tensor | float]]) -> None:
        """Put down the sums and counts of one forward pass in place of those before; they are detached.

        The shapes of the sums must be the same on every rank; what a rank does not put down counts as 0 there.
        """
        self._put = {
            name: (s.detach(), torch.as_tensor(c, device=s.device).detach()) for name, (s, c) in values.items()
        }

    def keep(self, window: int | None = None) -> None:
        """Count what was put down as a micro-batch of this window; what is left of another window is forgotten."""
        if window != self._window:
            self._window, self._kept = window, {}
        for name, (total, count) in self._put.items():
            before = self._kept.get(name)
            self._kept[name] = (total, count) if before is None else (before[0] + total, before[1] + count)
        self._put = {}

    def take(self) -> dict[str, SumAndCount]:
        """Return the sums and counts of the step over all ranks, and begin anew."""
        taken, self._kept = on_all_ranks(self._kept), {}
        return {name: (over_ranks(total), over_ranks(count)) for name, (total, count) in taken.items()}


def on_all_ranks(sums: dict[str, SumAndCount]) -> dict[str, SumAndCount]:
    """Return sums under the names of all ranks, in one order; a rank without a sample of a batch has zeros."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return sums
    world = World(torch.distributed.get_rank(), torch.distributed.get_world_size())
    forms = {name: [_form(value) for value in pair] for name, pair in sums.items()}
    found: dict[str, list[Any]] = {}
    for of_rank in world.everyones(forms):
        for name, pair in of_rank.items():
            found.setdefault(name, pair)
    return {name: sums.get(name, (_zeros(*found[name][0]), _zeros(*found[name][1]))) for name in sorted(found)}


def _form(value: Tensor) -> list[Any]:
    return [list(value.shape), str(value.dtype).removeprefix("torch."), value.device.type]


def _zeros(shape: list[int], dtype: str, device: str) -> Tensor:
    return torch.zeros(shape, dtype=getattr(torch, dtype), device=device)


def over_ranks(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks; the tensor itself where there is one rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    summed = value.clone()
    torch.distributed.all_reduce(summed)
    return summed

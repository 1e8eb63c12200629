"""The moving average of weights: how much an update keeps, and the averaged tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from trainkit.ranks.sharding import own_part


def decay_at(
    updates: int, decay: float, *, warmup: bool = True, power: float | None = None, gamma: float = 1.0
) -> float:
    """Return the share of the old average that the next update keeps.

    With t updates so far it is min(decay, (1 + t) / (10 + t)); with a power min(decay, 1 - (1 + t / gamma)^-power).

    Args:
        updates: t, how many updates there were.
        decay: the share that is never exceeded.
        warmup: whether the share rises; if not, it is `decay` from the first update on.
        power: of the other curve along which it may rise.
        gamma: updates after which the other curve is at 1 - 2^-power.
    """
    if not warmup:
        return decay
    rising = (1 + updates) / (10 + updates) if power is None else 1 - (1 + updates / gamma) ** -power
    return min(decay, rising)


class Average:
    """Keep a moving average of named weights, in fp32, or finer where the weights are.

    A weight takes part from the moment it is first followed, at which its average is a copy of it: an average that
    begins at zero would lag behind until it has forgotten the zero.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    @torch.no_grad()
    def follow(self, weights: Mapping[str, Tensor]) -> None:
        """Begin to average those of the weights that are not averaged yet; put the others where their weights are."""
        for name, weight in weights.items():
            held = self.tensors.get(name)
            if held is None:
                precision = torch.promote_types(weight.dtype, torch.float32)
                self.tensors[name] = weight.detach().to(precision, copy=True)
            elif held.device != weight.device:
                self.tensors[name] = held.to(weight.device)

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], decay: float) -> None:
        """Move the average on to `decay` of itself and 1 - `decay` of the weights."""
        if not self.tensors:
            return
        averages = list(self.tensors.values())
        now = [weights[name].to(average.dtype) for name, average in self.tensors.items()]
        torch._foreach_lerp_(averages, now, 1 - decay)

    @torch.no_grad()
    def write_into(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite the weights with their average, rounded to their own precision."""
        copy_all({name: weights[name] for name in self.tensors}, self.tensors)


@torch.no_grad()
def copy_all(into: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    """Overwrite tensors with those of the same names."""
    if into:
        torch._foreach_copy_([own_part(tensor) for tensor in into.values()], [own_part(source[name]) for name in into])

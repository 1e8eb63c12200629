"""Two-stage divide-and-conquer: after a first stage each share of hidden slots has decoder layers of its own.

Source: TDC 2312.13307 [paper]; groups by the share of hidden slots, early exit for the budgets, and a head, embeddings
and an encoder that all experts share are readings.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .layers import recomputed

if TYPE_CHECKING:
    from .slot_decoder import View

Route = Callable[[Tensor, "View", bool], Tensor]


def budgets(groups: int, easiest: float) -> list[float]:
    """Return each group's share of the full cost, easiest first: F_i = i/Ng + (Ng - i)/Ng * k [paper].

    Four groups and k = .6: .7, .8, .9, 1.

    Args:
        groups: Ng.
        easiest: k; 1 gives every group the full cost.
    """
    return [i / groups + (groups - i) / groups * easiest for i in range(1, groups + 1)]


def depths(layers: int, groups: int, easiest: float) -> list[int]:
    """Return how many of the first layers each group passes before the shared head: ceil(F_i * layers) [reading]."""
    return [math.ceil(share * layers - 1e-9) for share in budgets(groups, easiest)]


def group_of(rates: Tensor, groups: int) -> Tensor:
    """Return the group of shares of hidden slots, [B] in [0, 1]: group i of Ng from 0 has the interval (i/Ng, i+1/Ng].

    Few hidden slots are the easiest [reading: 4.4 of the algorithm reference].
    """
    return ((rates * groups).ceil().long() - 1).clamp(0, groups - 1)


def through(layers: Sequence[nn.Module] | nn.ModuleList, x: Tensor, view: View, recompute: bool) -> Tensor:
    """Return what layers make of slots [B, N, d], one after the other."""
    for layer in layers:
        x = recomputed(layer, recompute, x, view)
    return x


class Experts(nn.Module):
    """Hold copies of a decoder's first layers for each group of shares of hidden slots.

    They exist from the beginning, so that the optimizer knows them, and are used from `split` on. Whether that was is
    a buffer: a checkpoint knows it.

    Args:
        layers: those of the base decoder.
        groups: how many experts.
        easiest: k of the budgets.
    """

    def __init__(self, layers: nn.ModuleList, groups: int, easiest: float) -> None:
        super().__init__()
        self.groups = nn.ModuleList(
            nn.ModuleList(copy.deepcopy(layer) for layer in layers[:depth])
            for depth in depths(len(layers), groups, easiest)
        )
        self.is_split: Tensor
        self.register_buffer("is_split", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def split(self, layers: nn.ModuleList) -> None:
        """Begin with the weights of the base decoder's layers; a second time changes nothing."""
        if self.is_split:
            return
        for expert in self.groups:
            assert isinstance(expert, nn.ModuleList)
            for own, base in zip(expert, layers, strict=False):
                own.load_state_dict(base.state_dict())
        self.is_split.fill_(True)

    def route(self, rates: Tensor) -> Route | None:
        """Return the way through the experts for shares of hidden slots [B], or None before the split."""
        if not self.is_split:
            return None
        group = group_of(rates, len(self.groups))

        def go(x: Tensor, view: View, recompute: bool) -> Tensor:
            out = torch.empty_like(x)
            for number, expert in enumerate(self.groups):
                assert isinstance(expert, nn.ModuleList)
                rows = (group == number).nonzero()[:, 0]
                if len(rows):
                    made = through(expert, x[rows], view.rows(rows), recompute)
                    out = out.index_copy(0, rows, made.to(out.dtype))
            return out

        return go

    def layers_at(self, rate: float, layers: nn.ModuleList) -> nn.ModuleList:
        """Return the layers that work at a share of hidden slots: an expert's, or `layers` before the split."""
        if not self.is_split:
            return layers
        expert = self.groups[int(group_of(torch.tensor(rate), len(self.groups)))]
        assert isinstance(expert, nn.ModuleList)
        return expert


def only_experts_learn(patterns: Sequence[str]) -> bool:
    """Return whether the trainable patterns of a stage name experts and nothing else."""
    return bool(patterns) and all(pattern.partition(".")[0] == "experts" for pattern in patterns)

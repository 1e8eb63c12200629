"""How structure nodes relate to slots: what a slot is made of mostly hangs below what its parent is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .canvas import PLACES

if TYPE_CHECKING:
    from .encoder import Memory
    from .slot_decoder import Canvas

KINDS = ("child", "same place", "below", "itself")
FIRST_GUESS = (1.0, 1.0, 0.5, 0.0)
JUMPS = 4


def anchors(canvas: Canvas, nodes: int) -> Tensor:
    """Return for each slot the last source of its nearest ancestor that has one, [B, N]; -1 for the whole page."""
    assert canvas.sources is not None
    real = (canvas.sources >= 0) & (canvas.sources < nodes)
    last = (real.sum(dim=2) - 1).clamp(min=0)
    own = canvas.sources.gather(2, last[..., None])[..., 0].where(real.any(dim=2), -1)
    # A slot without sources hands on what its parent has. Each round jumps twice as far: four reach sixteen levels.
    above = canvas.parents
    for _ in range(JUMPS):
        from_above = own.gather(1, above.clamp(min=0))
        own = torch.where((own < 0) & (above >= 0), from_above, own)
        above = above.gather(1, above.clamp(min=0)).where(above >= 0, -1)
    return own.gather(1, canvas.parents.clamp(min=0)).where(canvas.parents >= 0, -1)


def relate(canvas: Canvas, memory: Memory) -> Tensor:
    """Return which nodes stand in which relation to each slot, [B, 4, N, S] as 0 and 1.

    child: a child of the anchor; same place: such a child at the slot's own place among its siblings; below: anywhere
    below the anchor; itself: the anchor. The page as a whole is the parent of the root.
    """
    assert memory.tree is not None
    nodes = memory.nodes.shape[1]
    anchor = anchors(canvas, nodes)[..., None]
    parents, ends, siblings = (part[:, None] for part in memory.tree.unbind(1))
    number = torch.arange(nodes, device=anchor.device)
    child = parents == anchor
    own_place = canvas.paths.where(canvas.paths >= 0, -1).max(dim=2).values.remainder(PLACES)[..., None]
    end = ends[:, 0].gather(1, anchor[..., 0].clamp(min=0))[..., None].where(anchor >= 0, nodes)
    below = (number > anchor) & (number < end) & (parents > -2)
    itself = (number == anchor) & (parents > -2)
    known = memory.node_mask[:, None]
    found = torch.stack([child, child & (siblings == own_place), below, itself], dim=1) & known[:, None]
    return found.to(memory.nodes.dtype)


class RelationBias(nn.Module):
    """Weigh relations: what is added to the attention, or to the score, of a node.

    Args:
        count: how many different weights a relation has, as one for each head.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(FIRST_GUESS)[:, None].repeat(1, count))

    def forward(self, relations: Tensor) -> Tensor:
        """Return [B, count, N, S] of relations [B, 4, N, S]."""
        return torch.einsum("brns,rc->bcns", relations, self.weight)

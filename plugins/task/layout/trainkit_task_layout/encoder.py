"""Read a page: patches of its screenshot and nodes of its structure pass one encoder together (early fusion)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Attention, DropPath, Feedforward, recomputed, rising, sin_cos, sin_cos_2d

DEPTHS, SIBLINGS = 32, 64
VISUAL, STRUCTURAL = 0, 1
Stem = Literal["patch", "convolution"]


@dataclass(slots=True)
class Memory:
    """Hold what was read of a page.

    Args:
        states: [B, M, d] patches first, then nodes.
        mask: [B, 1, 1, M] True where a state is real; None where all are.
        nodes: [B, S, d] the part of the nodes; S may be 0.
        node_mask: [B, S] bool.
        placed: [B, M, d] the states with the places of the patches added once more: whoever looks for a place finds it
            there, however far the encoder has mixed the states [paper 2005.12872].
        tree: [B, 3, S] parent (-1 for the root), end of the subtree and place among its siblings of each node, all -2
            where the structure was dropped; None if unknown.
        film: [B, 6, 1, d] added to the decoder's shifts, scales and gates, or None.

    A decoder looks at `placed` under `mask`: both may be longer than `states` by what supports the page.
    """

    states: Tensor
    mask: Tensor | None
    nodes: Tensor
    node_mask: Tensor
    placed: Tensor
    tree: Tensor | None = None
    film: Tensor | None = None

    @property
    def patches(self) -> Tensor:
        """Return the part of the patches, [B, P, d]; P may be 0."""
        return self.states[:, : self.states.shape[1] - self.nodes.shape[1]]

    @property
    def state_mask(self) -> Tensor | None:
        """Return [B, M] True where a state is real; None where all are."""
        return None if self.mask is None else self.mask[:, 0, 0, : self.states.shape[1]]

    def rows(self, index: Tensor) -> Memory:
        """Return the memory of some of the pages."""
        parts = (getattr(self, part.name) for part in fields(self))
        return Memory(*(None if part is None else part[index] for part in parts))

    def supported(self, context: Tensor | None, film: Tensor | None) -> Memory:
        """Return the memory with [B, P, d] more to look at, and with what is added to the decoder's scales."""
        if context is None:
            return replace(self, film=film)
        mask = None if self.mask is None else F.pad(self.mask, (0, context.shape[1]), value=True)
        return replace(self, mask=mask, placed=torch.cat([self.placed, context.to(self.placed)], dim=1), film=film)


@dataclass(frozen=True)
class Dropping:
    """Say which samples lose which part of their condition: [B] bool each, or None for no sample."""

    visual: Tensor | None = None
    structural: Tensor | None = None

    @property
    def whole(self) -> Tensor | None:
        """Return who loses everything, [B] bool, or None for nobody."""
        return None if self.visual is None or self.structural is None else self.visual & self.structural

    @classmethod
    def of_all(cls, batch: int, device: torch.device) -> Dropping:
        """Drop everything of everyone."""
        everyone = torch.ones(batch, dtype=torch.bool, device=device)
        return cls(everyone, everyone)

    @classmethod
    def drawn(cls, batch: int, whole: float, single: float, device: torch.device) -> Dropping:
        """Drop the whole condition with one probability, and else each part with another [paper 2207.12598]."""
        everything = torch.rand(batch, device=device) < whole
        visual, structural = torch.rand(2, batch, device=device) < single
        return cls(everything | (visual & ~structural), everything | (structural & ~visual))


class Patches(nn.Module):
    """Cut a picture into patches and project each: [B, 3, H, W] to [B, H/p, W/p, d] [paper 2010.11929]."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.project = nn.Linear(3 * patch * patch, width)

    def forward(self, pixel_values: Tensor) -> Tensor:
        batch, channels, height, width = pixel_values.shape
        p = self.patch
        cells = pixel_values.view(batch, channels, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5)
        out: Tensor = self.project(cells.reshape(batch, height // p, width // p, channels * p * p))
        return out


class Convolutions(nn.Module):
    """Halve a picture until a cell is a patch, learning local shapes: [B, 3, H, W] to [B, H/p, W/p, d].

    Few samples teach convolutions more than projections of patches.  [reading: the stem of 7.1 is a projection]
    """

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        halvings = int(math.log2(patch))
        if 2**halvings != patch:
            raise ValueError(f"a convolutional stem halves: patch {patch} is not a power of 2")
        widths = [3, *(max(16, width >> (halvings - 1 - i)) for i in range(halvings))]
        stages: list[nn.Module] = []
        for i in range(halvings):
            stages += [nn.Conv2d(widths[i], widths[i + 1], 3, stride=2, padding=1), nn.GroupNorm(1, widths[i + 1])]
            stages += [nn.GELU(), nn.Conv2d(widths[i + 1], widths[i + 1], 3, padding=1), nn.GELU()]
        self.stages = nn.Sequential(*stages)
        self.project = nn.Linear(widths[-1], width)
        # Without it what is seen begins much fainter than where it is seen.
        self.norm = nn.LayerNorm(width)

    def forward(self, pixel_values: Tensor) -> Tensor:
        out: Tensor = self.norm(self.project(self.stages(pixel_values).permute(0, 2, 3, 1)))
        return out


class Structure(nn.Module):
    """Embed the nodes of a structure: tag and classes as a bag, depth, place among siblings, reading order.

    Args:
        words: rows of the table that tags and hashed classes share; row 0 is nothing.
        width: features of a node.
    """

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(words, width, padding_idx=0)
        self.depth = nn.Embedding(DEPTHS, width)
        self.sibling = nn.Embedding(SIBLINGS, width)
        for table in (self.token, self.depth, self.sibling):
            nn.init.normal_(table.weight, std=0.2)

    def forward(self, struct_ids: Tensor, struct_classes: Tensor, depth: Tensor, sibling: Tensor) -> Tensor:
        words = self.token(struct_ids) + self.token(struct_classes).sum(dim=2)
        order = sin_cos(torch.arange(struct_ids.shape[1], device=words.device), words.shape[-1]).to(words)
        out: Tensor = words + self.depth(depth) + self.sibling(sibling) + order
        return out


class EncoderLayer(nn.Module):
    """Mix positions, then features, each around a residual (pre-LN)."""

    def __init__(self, width: int, heads: int, dropout: float, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm_attention, self.norm_feedforward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.feedforward = Attention(width, heads, dropout), Feedforward(width)
        self.drop, self.drop_path = nn.Dropout(dropout), DropPath(drop_path)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.norm_attention(x)
        x = x + self.drop_path(self.drop(self.attention(y, self.attention.keys_values(y), mask)))
        return x + self.drop_path(self.drop(self.feedforward(self.norm_feedforward(x))))


class PageEncoder(nn.Module):
    """Encode a screenshot, a structure, or both.

    Args:
        width: features of a position.
        heads: attention heads.
        layers: encoder layers.
        patch: side of a patch in pixels.
        words: rows of the table of tags and classes.
        stem: how pictures become patches.
        dropout: share of features dropped in training.
        drop_path: stochastic depth at the last layer, rising linearly from 0.
        feature_noise: standard deviation of noise on the embedded inputs in training.
        visual: what turns pictures into cells in place of a stem, as a pretrained backbone.
        text: what turns the tokens of nodes into features, as a pretrained backbone.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        patch: int,
        words: int,
        stem: Stem = "patch",
        dropout: float = 0.0,
        drop_path: float = 0.0,
        feature_noise: float = 0.0,
        visual: nn.Module | None = None,
        text: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.visual = visual or (Patches(patch, width) if stem == "patch" else Convolutions(patch, width))
        self.text = text
        self.structure = Structure(words, width)
        self.modality = nn.Parameter(torch.randn(2, width) * 0.02)
        self.null = nn.Parameter(torch.randn(2, width) * 0.02)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, dropout, rate) for rate in rising(drop_path, layers))
        self.norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        self.feature_noise = feature_noise
        self.recompute = False

    def forward(
        self,
        batch: int,
        pixel_values: Tensor | None = None,
        struct_ids: Tensor | None = None,
        struct_classes: Tensor | None = None,
        depth: Tensor | None = None,
        sibling: Tensor | None = None,
        struct_mask: Tensor | None = None,
        struct_tokens: Tensor | None = None,
        struct_parent: Tensor | None = None,
        struct_end: Tensor | None = None,
        dropping: Dropping | None = None,
    ) -> Memory:
        """Return the memory of `batch` pages.

        Args:
            batch: number of pages; with neither pictures nor structures the memory is one null state each.
            pixel_values: [B, 3, H, W], sides multiples of the patch.
            struct_ids: [B, S] rows of the nodes' tags.
            struct_classes: [B, S, C] rows of their classes, 0 for none.
            depth: [B, S] level of each node.
            sibling: [B, S] place of each node among its siblings.
            struct_mask: [B, S] True where a node is real.
            struct_tokens: [B, S, T] tokens of the nodes' text, -1 behind their end.
            struct_parent: [B, S] parent of each node, -1 for the root.
            struct_end: [B, S] the node behind the last one of each subtree.
            dropping: whose condition is replaced by the learned null vectors; lengths and masks stay.
        """
        dropping = dropping or Dropping()
        parts: list[Tensor] = []
        places = None
        if pixel_values is not None:
            grid = self.visual(pixel_values)
            flat = self._nulled(grid.flatten(1, 2), dropping.visual, VISUAL)
            places = sin_cos_2d(grid.shape[1], grid.shape[2], grid.shape[3], flat.device).to(flat)
            parts.append(flat + places + self.modality[0])
        mask, nodes, tree = None, 0, None
        if struct_ids is not None and struct_classes is not None and depth is not None and sibling is not None:
            assert struct_mask is not None
            known = self.structure(struct_ids, struct_classes, depth, sibling)
            if self.text is not None and struct_tokens is not None:
                known = known + self.text(struct_tokens)
            known = self._nulled(known, dropping.structural, STRUCTURAL)
            parts.append(known + self.modality[1])
            nodes = known.shape[1]
            if struct_parent is not None and struct_end is not None:
                tree = torch.stack([struct_parent, struct_end, sibling], dim=1)
                tree = tree if dropping.structural is None else tree.where(~dropping.structural[:, None, None], -2)
        else:
            struct_mask = torch.zeros(batch, 0, dtype=torch.bool, device=self.null.device)
        if not parts:
            parts.append(self.null[:1].expand(batch, 1, -1))
        x = torch.cat(parts, dim=1)
        if nodes:
            mask = F.pad(struct_mask, (x.shape[1] - nodes, 0), value=True)[:, None, None]
        if self.training and self.feature_noise:
            x = x + self.feature_noise * torch.randn_like(x)
        x = self.drop(x)
        for layer in self.layers:
            x = recomputed(layer, self.recompute, x, mask)
        x = self.norm(x)
        placed = x if places is None else x + F.pad(places, (0, 0, 0, x.shape[1] - len(places)))
        return Memory(x, mask, x[:, x.shape[1] - nodes :], struct_mask, placed, tree)

    def _nulled(self, x: Tensor, dropped: Tensor | None, modality: int) -> Tensor:
        return x if dropped is None else torch.where(dropped[:, None, None], self.null[modality].to(x.dtype), x)


def pooled(states: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean over real positions, [B, d]; 0 where there is none."""
    if mask is None:
        return states.mean(1) if states.shape[1] else states.sum(1)
    shares = mask.to(states.dtype)[..., None]
    return (states * shares).sum(1) / shares.sum(1).clamp(min=1)

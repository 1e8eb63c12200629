"""The parts that the readers and writers of layouts are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Whatever the number of patches or of siblings, a place is a share of the whole, and the whole is this long.
EXTENT = 32.0
# The longest wave is about as long as the whole: longer ones would say the same of every place.
PLACE_WAVES = 12.0
# Of so many ancestors, the nearest, the place among their siblings is told.
ANCESTORS = 3


def sin_cos(positions: Tensor, width: int, base: float = 10000.0) -> Tensor:
    """Return sine and cosine embeddings [..., width] of positions [...] [paper 1706.03762].

    Args:
        positions: numbers.
        width: features, half sines and half cosines.
        base: ratio of the longest to the shortest wave.
    """
    exponents = torch.arange(0, width, 2, device=positions.device) / width
    angles = positions[..., None] * base**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[..., :width]


def middles(count: int, device: torch.device | None = None) -> Tensor:
    """Return the middles of `count` equal parts of the whole."""
    return (torch.arange(count, device=device) + 0.5) / count * EXTENT


def sin_cos_2d(rows: int, columns: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return embeddings of the cells of a grid, [rows * columns, width]: rows in one half, columns in the other.

    They do not depend on the resolution: the same place has the same embedding in a finer grid.
    """
    down = sin_cos(middles(rows, device), width // 2, PLACE_WAVES)[:, None].expand(-1, columns, -1)
    across = sin_cos(middles(columns, device), width // 2, PLACE_WAVES)[None].expand(rows, -1, -1)
    return torch.cat([down, across], dim=-1).reshape(rows * columns, -1)


class Attention(nn.Module):
    """Attend with several heads from `x` to keys and values made of a context."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values, each [B, heads, M, width / heads]."""
        batch, length, _ = context.shape
        both = self.key_value(context).view(batch, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        return both[0], both[1]

    def forward(
        self, x: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        batch, length, width = x.shape
        query = self.query(x).view(batch, length, self.heads, -1).transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, *keys_values, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class Feedforward(nn.Sequential):
    """Widen four times, bend, narrow."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def rising(highest: float, layers: int) -> list[float]:
    """Return a rate for each layer, from 0 at the first to `highest` at the last; one layer alone has none."""
    return [highest * i / max(1, layers - 1) for i in range(layers)]


class DropPath(nn.Module):
    """Leave a residual branch out for whole samples, and scale what stays [paper 1603.09382]."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not (self.training and self.rate):
            return branch
        kept = torch.rand(branch.shape[0], *[1] * (branch.ndim - 1), device=branch.device) >= self.rate
        return branch * kept.to(branch.dtype) / (1 - self.rate)


def recomputed(layer: Callable[..., Any], enabled: bool, *inputs: Any) -> Any:
    """Call a layer; where enabled, its inner results are not kept but computed again in the backward pass."""
    if not (enabled and torch.is_grad_enabled()):
        return layer(*inputs)
    # Imported where it is asked for: it brings PyTorch's compiler along.
    from torch.utils.checkpoint import checkpoint

    return checkpoint(layer, *inputs, use_reentrant=False)

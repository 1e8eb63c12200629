"""Few-shot conditioning: a model also looks at screenshots of training pages like the one at hand.

Source: FSDM 2205.15463 [paper]; what follows is its use for layouts [reading].
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from .encoder import Convolutions, EncoderLayer, Patches, Stem
from .layers import sin_cos_2d

SupportUse = Literal["cross-attention", "film"]
LAYERS = 2
FEWEST = 2


class SetEncoder(nn.Module):
    """Encode a set of pictures as one grid: a shared transformer reads each picture, and patches are averaged over the
    set place by place.

    Pictures do not look at each other, so that each is read once for all sets that it is in [reading: the paper leaves
    open what the shared transformer sees at a time].

    Args:
        width: features of a position.
        heads: attention heads.
        patch: side of a patch in pixels.
        stem: how pictures become patches.
        dropout: share of features dropped in training.
    """

    def __init__(self, width: int, heads: int, patch: int, stem: Stem, dropout: float) -> None:
        super().__init__()
        self.stem = Patches(patch, width) if stem == "patch" else Convolutions(patch, width)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, dropout) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(width)

    def forward(self, pictures: Tensor, shares: Tensor) -> Tensor:
        """Return the sets as [B, P, d].

        Args:
            pictures: [n, 3, S, S] in [-1, 1].
            shares: [B, n] the share of each picture in each set; a set of k has k times 1/k.
        """
        grid = self.stem(pictures)
        x = grid.flatten(1, 2) + sin_cos_2d(grid.shape[1], grid.shape[2], grid.shape[3], grid.device).to(grid)
        for layer in self.layers:
            x = layer(x, None)
        x = self.norm(x)
        return torch.einsum("bn,npd->bpd", shares.to(x.dtype), x)


class FewShot(nn.Module):
    """Draw support pictures for each sample and make of them what a decoder can look at.

    In training each sample draws anew, between 2 and `most` pictures; in evaluation it takes the first `most` that it
    may. Who may look at none, or loses its condition, has a learned null instead.

    Args:
        pictures: [n, S, S, 3] bytes, the support bank. It is no part of the model's state: the task keeps it.
        most: k, the most pictures of a set.
        use: 'cross-attention' lets slots look at the set beside the page; 'film' shifts and scales their norms by it.
        width: features of a position.
        heads: attention heads.
        patch: side of a patch in pixels; the pictures' side is a multiple.
        stem: how pictures become patches.
        dropout: share of features dropped in training.
    """

    def __init__(
        self,
        pictures: Tensor,
        most: int,
        use: SupportUse,
        width: int,
        heads: int,
        patch: int,
        stem: Stem,
        dropout: float,
    ) -> None:
        super().__init__()
        self.most, self.use = most, use
        self.pictures: Tensor
        self.register_buffer("pictures", pictures, persistent=False)
        self.cells = (pictures.shape[1] // patch) ** 2
        self.encoder = SetEncoder(width, heads, patch, stem, dropout)
        self.kind = nn.Parameter(torch.randn(width) * 0.02)
        self.null = nn.Parameter(torch.randn(width) * 0.02)
        if use == "film":
            self.film = nn.Linear(width, 4 * width)
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, allowed: Tensor | None, dropped: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return more to look at [B, P, d], or None; and what is added to scales [B, 6, 1, d], or None.

        Args:
            allowed: [B, n] bool, the pictures of the bank that a sample may look at.
            dropped: [B] bool, who loses its condition, or None for nobody.

        Raises:
            ValueError: the batch does not say which pictures a sample may look at.
        """
        if allowed is None:
            raise ValueError("the batch has no support_mask")
        context = self.context(self.draw(allowed), dropped)
        if self.use == "cross-attention":
            return context, None
        shift, scale, shift_late, scale_late = self.film(context.mean(dim=1)).unflatten(-1, (4, -1)).unbind(1)
        still = torch.zeros_like(shift)
        return None, torch.stack([shift, scale, still, shift_late, scale_late, still], dim=1)[:, :, None]

    def draw(self, allowed: Tensor) -> Tensor:
        """Return the share [B, n] of each picture in the set of each sample; a row of zeros is an empty set."""
        batch, count = allowed.shape
        if self.training:
            wanted = torch.randint(min(FEWEST, self.most), self.most + 1, (batch, 1), device=allowed.device)
            order = torch.rand(batch, count, device=allowed.device)
        else:
            wanted = torch.full((batch, 1), self.most, device=allowed.device)
            order = torch.arange(count, device=allowed.device).expand(batch, -1).float()
        rank = order.masked_fill(~allowed, torch.inf).argsort(dim=1).argsort(dim=1)
        chosen = (allowed & (rank < wanted)).float()
        return chosen / chosen.sum(dim=1, keepdim=True).clamp(min=1)

    def context(self, shares: Tensor, dropped: Tensor | None = None) -> Tensor:
        """Return the sets as [B, P, d], the learned null where a set is empty or its sample dropped.

        Args:
            shares: [B, n] of each picture of the bank in each set.
            dropped: [B] bool, or None for nobody.
        """
        present = shares.sum(dim=1) > 0
        present = present if dropped is None else present & ~dropped
        used = (shares * present[:, None]).sum(dim=0).nonzero()[:, 0]
        null = self.null.expand(len(shares), self.cells, -1)
        if not len(used):
            return null
        pictures = self.pictures[used].permute(0, 3, 1, 2).to(self.null.dtype).div(127.5).sub(1.0)
        seen = self.encoder(pictures, shares[:, used]) + self.kind
        return torch.where(present[:, None, None], seen.to(null.dtype), null)

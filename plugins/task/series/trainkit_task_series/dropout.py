"""Dropout whose masks are cheap to draw and to keep."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Values that a drawn integer of 16 bits may take, and the least of them.
DRAWS, LEAST = 1 << 16, -(1 << 15)
IN_A_WORD = 4


def share_kept(rate: float) -> float:
    """Return the share that `kept` keeps: 1 - `rate` to the nearest 1/65536."""
    return 1 - round(rate * DRAWS) / DRAWS


def kept(shape: tuple[int, ...], rate: float, device: torch.device) -> Tensor:
    """Return what is kept, int8 of the shape: 1, or 0 with a probability of `rate` to the nearest 1/65536.

    Four numbers are cut out of each draw of 64 bits: PyTorch draws one number after the other on a CPU, which would
    cost more there than the products around it.
    """
    count = 1
    for size in shape:
        count *= size
    words = torch.empty(-(-count // IN_A_WORD), dtype=torch.int64, device=device).random_(-(1 << 63), None)
    draws = words.view(torch.int16)[:count]
    first = round(rate * DRAWS) + LEAST
    # A clamp between two neighbours tells below from above, many at a time; comparisons of small integers are slow.
    return draws.clamp_(first - 1, first).sub_(first - 1).to(torch.int8).view(shape)


class Dropout(nn.Module):
    """Set a share of the features to 0 in training, and scale what stays [paper 1207.0580].

    Args:
        rate: the share, in [0, 1), to the nearest 1/65536.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    @property
    def active(self) -> bool:
        """Tell whether anything is dropped now."""
        return self.training and self.rate > 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        return x * kept(tuple(x.shape), self.rate, x.device).to(x.dtype).div_(share_kept(self.rate))

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"rate={self.rate}"

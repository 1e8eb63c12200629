"""What each rule remembers: buffers that advance once a step, so that a resumed run has the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .formulas import Scale, alpha_beta, directional, variation

Sums = Mapping[str, tuple[Tensor, Tensor]]


def mean_of(pair: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean of a sum and its count, which may be weighted and below 1; the sum where nothing was counted."""
    total, count = pair
    return total / torch.where(count > 0, count, 1)


class AlphaBeta(nn.Module):
    """Remember the last values of the main part and of the alignment.

    Args:
        window: W, how many values are remembered.
        scale: what variances are measured by.
    """

    history: Tensor
    seen: Tensor

    def __init__(self, window: int, scale: Scale) -> None:
        super().__init__()
        self.scale: Scale = scale
        self.register_buffer("history", torch.zeros(2, window))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return a and b: 1 and 0.5 until the memory is full."""
        a, b = alpha_beta(self.history[0], self.history[1], self.scale)
        is_full = self.seen >= self.history.shape[1]
        return torch.where(is_full, a, 1.0), torch.where(is_full, b, 0.5)

    def advance(self, sums: Sums) -> None:
        """Take the means of a step; a step that had no alignment is left out."""
        means = torch.stack([mean_of(sums["main"]), mean_of(sums["align"])])
        place = (self.seen % self.history.shape[1]).view(1)
        had_both = (sums["main"][1] > 0) & (sums["align"][1] > 0)
        self.history.index_copy_(1, place, torch.where(had_both, means.unsqueeze(1), self.history[:, place]))
        self.seen += had_both


class Directional(nn.Module):
    """Remember how much similarities vary in each direction, smoothed.

    Args:
        smoothing: share of the old value in the moving average.
    """

    spread: Tensor

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.register_buffer("spread", torch.zeros(2))

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return the weights of the two directions: 1 and 1 at first."""
        both = directional(self.spread)
        return both[0], both[1]

    def advance(self, sums: Sums) -> None:
        """Take the variability of a step. From zeros the average is too small at first, but its ratio is right."""
        new = self.smoothing * self.spread + (1 - self.smoothing) * mean_of(sums["spread"])
        self.spread.copy_(torch.where(sums["spread"][1] > 0, new, self.spread))


class Variation(nn.Module):
    """Remember for each term the mean loss, and the mean and spread of its loss ratios.

    Args:
        names: the terms.
    """

    count: Tensor
    loss_mean: Tensor
    ratio_mean: Tensor
    ratio_squares: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        for name in ("count", "loss_mean", "ratio_mean", "ratio_squares"):
            self.register_buffer(name, torch.zeros(len(self.names)))

    def weights(self, live: Sequence[str]) -> dict[str, Tensor]:
        """Return the weights of the terms that a batch gives; they sum to 1."""
        places = [self.names.index(name) for name in live]
        if not places:
            return {}
        found = variation(self.ratio_mean[places], self.ratio_squares[places], self.count[places])
        return {name: found[i] for i, name in enumerate(live)}

    def advance(self, sums: Sums) -> None:
        """Take the means of a step (Welford's recurrences); a term that was not there keeps what it had."""
        there = torch.stack([sums[name][1] for name in self.names]) > 0
        values = torch.stack([mean_of(sums[name]) for name in self.names])
        count = self.count + 1
        ratio = torch.where(self.count > 0, values / torch.where(self.loss_mean == 0, 1, self.loss_mean), 1.0)
        step = ratio - self.ratio_mean
        ratio_mean = self.ratio_mean + step / count
        updates = {
            "ratio_squares": self.ratio_squares + step * (ratio - ratio_mean),
            "ratio_mean": ratio_mean,
            "loss_mean": self.loss_mean + (values - self.loss_mean) / count,
            "count": count,
        }
        for name, new in updates.items():
            getattr(self, name).copy_(torch.where(there, new, getattr(self, name)))

"""Open, high, low, close and volume among scaled targets: kept possible after their values were changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

OPEN, HIGH, LOW, CLOSE, VOLUME = range(5)


@dataclass(frozen=True)
class Candles:
    """Hold which targets are candles, and how they are scaled.

    Args:
        columns: places of open, high, low, close among the targets, and of volume if there is one.
        loc: [B, T], added to values that were multiplied by `scale`.
        scale: [B, T].
    """

    columns: Sequence[int]
    loc: Tensor
    scale: Tensor

    def in_units(self, values: Tensor) -> list[Tensor]:
        """Return the columns of scaled values [B, L, T] in original units: [B, L] each, in float64."""
        return [values[..., at].double() * self._scale(at) + self._loc(at) for at in self.columns]

    def repaired(self, values: Tensor, observed: Tensor | None) -> Tensor:
        """Return scaled values in which high is on top, low at the bottom, and no volume below 0, as 8.2 has it.

        A bar is left as it is where one of its prices was not measured.

        Args:
            values: [B, L, T].
            observed: [B, L, T]; everywhere if not given.
        """
        bars = self.in_units(values)
        possible = {
            HIGH: torch.maximum(bars[HIGH], torch.maximum(bars[OPEN], bars[CLOSE])),
            LOW: torch.minimum(bars[LOW], torch.minimum(bars[OPEN], bars[CLOSE])),
        }
        if len(bars) > VOLUME:
            possible[VOLUME] = bars[VOLUME].clamp(min=0)
        whole = None if observed is None else torch.stack([observed[..., at] for at in self.columns[:VOLUME]]).all(0)
        result = values.clone()
        for part, wanted in possible.items():
            at = self.columns[part]
            wrong = wanted != bars[part]
            back = ((wanted - self._loc(at)) / self._scale(at)).to(values.dtype)
            result[..., at] = torch.where(wrong if whole is None else wrong & whole, back, values[..., at])
        return result

    def are_positive(self, values: Tensor, observed: Tensor | None) -> Tensor:
        """Return whether every measured price of a window is above 0: [B]; arguments as for `repaired`."""
        fine = [
            (bar > 0) if observed is None else (bar > 0) | ~observed[..., at]
            for at, bar in zip(self.columns[:VOLUME], self.in_units(values), strict=False)
        ]
        return torch.stack(fine).all(0).all(1)

    def _loc(self, at: int) -> Tensor:
        return self.loc[:, at, None].double()

    def _scale(self, at: int) -> Tensor:
        return self.scale[:, at, None].double()

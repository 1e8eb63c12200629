"""How difficult windows are: how badly last season's values forecast them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .windows import Windows


def seasonal_difficulty(values: Tensor, measured: Tensor | None, season: int, starts: Tensor, horizon: int) -> Tensor:
    """Return [W] how badly the values a season before tell those of each horizon, in [0, 1]: the mean over targets.

    Of a target it is E / (E + V), where E is the sum of squared differences to the values a season before and V that
    to the mean of the horizon: it rises with 1 - R^2 = E / V, and is finite where the horizon is flat. 0 is a repeated
    season, 1/2 what the mean would do. A horizon without any measured pair counts as 1.

    Args:
        values: [N, T] rows of all series.
        measured: [N, T] bool; None for everywhere.
        season: rows of a season; those of a window's past hold one at least.
        starts: [W] first row of each horizon.
        horizon: rows of it.
    """
    centred = values.double() - values.double().mean(0)
    change = torch.zeros_like(centred)
    change[season:] = centred[season:] - centred[:-season]
    there = torch.ones_like(values, dtype=torch.bool) if measured is None else measured.clone()
    there[season:] &= there[:-season].clone()
    count = _sums(there.double(), starts, horizon)
    errors = _sums(change.square() * there, starts, horizon)
    total = _sums(centred * there, starts, horizon)
    spread = (_sums(centred.square() * there, starts, horizon) - total.square() / count.clamp(min=1)).clamp(min=0)
    # What sums leave over of equal values is no spread.
    spread = torch.where(spread <= 1e-9 * (errors + spread + total.square()), 0.0, spread)
    share = torch.where(errors > 0, errors / (errors + spread).clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    known = count > 0
    mean = (share * known).sum(1) / known.sum(1).clamp(min=1)
    return torch.where(known.any(1), mean, 1.0)


def _sums(rows: Tensor, starts: Tensor, length: int) -> Tensor:
    """Return [W, T] the sums of `length` rows from each start on."""
    sums = torch.cat([rows.new_zeros(1, rows.shape[1]), rows.cumsum(0)])
    return sums.index_select(0, starts + length) - sums.index_select(0, starts)


class Difficulty(Sequence[float]):
    """Hold the difficulty of windows, which is worked out when the first value is asked for."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    @cached_property
    def values(self) -> list[float]:
        """Return the difficulty of each window."""
        windows, store = self.windows, self.windows.store
        assert store is not None
        targets = store.rows[:, : store.layout.targets]
        return seasonal_difficulty(targets, store.measured, store.season, windows.starts, windows.horizon).tolist()

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """Return the values as an array at once."""
        del copy
        return np.array(self.values, dtype=dtype)

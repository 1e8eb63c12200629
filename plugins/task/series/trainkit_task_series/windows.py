"""Windows of series as strided gathers: a batch is one copy, with no Python for each window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .difficulty import Difficulty
from .grid import Ints, stamp
from .relative import centred

# What is the same for all samples of a batch.
SHARED = ("target_names", "series_names")


@dataclass(frozen=True)
class Layout:
    """Count what a row holds, in this order.

    Args:
        targets: T scaled targets.
        observed: O scaled inputs known over the past alone.
        known: K inputs known ahead, calendar features last.
    """

    targets: int
    observed: int
    known: int

    @property
    def width(self) -> int:
        """Return the numbers in a row."""
        return self.targets + self.observed + self.known


@dataclass(frozen=True)
class Store:
    """Hold scaled series for all windows.

    Args:
        layout: what a row holds.
        rows: [N, width] float32, 0 where nothing was measured; relative targets in original units.
        measured: [N, T] bool, or None where everything was.
        places: [N, 3] of each row the number of its series, its number in it, and its microseconds since 1970.
        facts: [series, 3, T] loc, scale and season_error.
        statics: tensors with one row for each series.
        target_names: names of the T targets.
        series_names: names of the series.
        relative: [T] bool, which targets are scaled window by window; None for none.
        times: [N, 1] of each row, where batches are to tell them, as they are not regular.
        asinh: [T] bool, of which targets scaled values are asinh((x - loc) / scale); None for none.
        season: rows of a season.
    """

    layout: Layout
    rows: Tensor
    measured: Tensor | None
    places: Tensor
    facts: Tensor
    statics: dict[str, Tensor]
    target_names: tuple[str, ...]
    series_names: tuple[str, ...]
    relative: Tensor | None = None
    times: Tensor | None = None
    asinh: Tensor | None = None
    season: int = 1

    def batch(self, starts: Tensor, context: int, horizon: int) -> dict[str, Any]:
        """Return the windows whose horizons begin at these rows [B]."""
        length = context + horizon
        whole = strided(self.rows, starts - context, length)
        counts = self.layout
        values, observed, known = whole.split([counts.targets, counts.observed, counts.known], dim=-1)
        if self.measured is None:
            mask = torch.ones(1, 1, 1, dtype=torch.bool).expand(len(starts), length, counts.targets)
        else:
            mask = strided(self.measured, starts - context, length)
        series, start, start_time = self.places.index_select(0, starts).unbind(1)
        loc, scale, season_error = self.facts.index_select(0, series).unbind(1)
        if self.relative is not None:
            values, loc, scale = centred(values, mask, context, loc, scale, self.relative)
        batch: dict[str, Any] = {
            "past_values": values[:, :context],
            "past_observed_mask": mask[:, :context],
            "future_values": values[:, context:],
            "future_observed_mask": mask[:, context:],
        }
        if counts.observed:
            batch["past_covariates"] = observed[:, :context]
        if counts.known:
            batch |= {"past_time_features": known[:, :context], "future_time_features": known[:, context:]}
        if self.times is not None:
            batch["times"] = strided(self.times, starts - context, length).squeeze(-1)
        batch |= {name: tensor.index_select(0, series) for name, tensor in self.statics.items()}
        if self.asinh is not None:
            batch["asinh_mask"] = self.asinh.expand(loc.shape)
        return batch | {
            "loc": loc,
            "scale": scale,
            "season_error": season_error,
            "series": series,
            "start": start,
            "start_time": start_time,
            "target_names": self.target_names,
            "series_names": self.series_names,
        }


def strided(rows: Tensor, first: Tensor, length: int) -> Tensor:
    """Return [B, length, D]: of rows [N, D] the `length` ones from each row of `first` [B] on.

    Consecutive rows lie side by side in memory, so each window is copied in one piece.
    """
    width = rows.shape[1]
    windows = rows.as_strided((len(rows) - length + 1, length * width), (width, 1))
    return windows.index_select(0, first).view(len(first), length, width)


class Windows:
    """Hold the windows of a split.

    Args:
        starts: [W] the first horizon row of each.
        context: steps of the past.
        horizon: steps that are forecast.
        names: of the series.
    """

    def __init__(self, starts: Ints, context: int, horizon: int, names: Sequence[str]) -> None:
        self.starts = torch.from_numpy(starts)
        self.context, self.horizon, self.names = context, horizon, names
        self.store: Store | None = None
        self._difficulty: Difficulty | None = None
        self.warnings: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.starts)

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        if self.store is None:
            raise RuntimeError("windows are scaled by what the task learns: call its fit first")
        return self.store.batch(self.starts.index_select(0, torch.tensor(indices)), self.context, self.horizon)

    @property
    def groups(self) -> Ints | None:
        """Return the number of each window's series, or None before anything was learned."""
        return None if self.store is None else self.store.places[self.starts, 0].numpy()

    @property
    def difficulty(self) -> Difficulty | None:
        """Return how badly last season's values tell each window's horizon, or None before anything was learned."""
        if self.store is None:
            return None
        if self._difficulty is None:
            self._difficulty = Difficulty(self)
        return self._difficulty

    @property
    def ids(self) -> Ids:
        """Return the name of each window."""
        return Ids(self)


class Ids(Sequence[str]):
    """Make names of windows as they are asked for: SERIES at TIME."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: Any) -> Any:
        store = self.windows.store
        if store is None:
            return str(index)
        row = self.windows.starts[index]
        series, _, time = store.places[row].tolist()
        return f"{self.windows.names[series]} at {stamp(time)}"

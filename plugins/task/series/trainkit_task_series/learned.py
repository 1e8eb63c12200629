"""What the task learns from training rows and keeps in its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .bars import Bars
from .calendar import Calendar, calendar_features
from .panel import Panel
from .relative import with_relative
from .rows import Static
from .scaling import Method, Scaling
from .schema import Schema
from .windows import Layout, Store

UNSEEN = 0


@dataclass(frozen=True)
class Learned:
    """Hold what a model and new inputs need to know of the data.

    Args:
        schema: what the columns are.
        step: of the grid, in microseconds.
        season: steps of a season.
        calendar: calendar features.
        scaling: of each series.
        words: for each static its words, or () where it is a number.
        reals: for each static mean and deviation, where it is a number.
        relative: targets that are seen relative to their last value.
    """

    schema: Schema
    step: int
    season: int
    calendar: tuple[Calendar, ...]
    scaling: Scaling
    words: tuple[tuple[str, ...], ...]
    reals: tuple[tuple[float, float], ...]
    relative: tuple[str, ...] = ()

    @classmethod
    def from_rows(
        cls,
        panel: Panel,
        schema: Schema,
        train: np.ndarray,
        season: int,
        calendar: Sequence[Calendar],
        method: Method,
        relative: Sequence[str] = (),
        span: int = 1,
    ) -> Learned:
        """Return what the rows that `train` [N] marks tell.

        Args:
            panel: the series.
            schema: what the columns are.
            train: [N] whether a row may be learned from.
            season: steps of a season.
            calendar: calendar features.
            method: how series and columns are scaled.
            relative: targets that are seen relative to their last value.
            span: steps of the moves whose usual size is the scale of a relative target.
        """
        before = np.arange(len(panel)) - season
        # Training may have a hole, where a fold validates: a row after it has a season before it that is not learned.
        follows = (before >= panel.first) & train[np.maximum(before, 0)]
        scaling = Scaling.learned(
            panel.names, panel.series, panel.values, follows, train, method, season, len(schema.targets)
        )
        columns = [schema.targets.index(name) for name in relative]
        scaling = with_relative(scaling, panel, train, columns, span)
        seen = np.flatnonzero(np.bincount(panel.series[train])).tolist()
        words, reals = [], []
        for place in range(len(schema.statics)):
            values = [panel.statics[number][place] for number in seen]
            texts = sorted({value for value in values if isinstance(value, str)})
            words.append(tuple(texts))
            numbers = np.array([value for value in values if isinstance(value, float)] or [0.0])
            reals.append((float(numbers.mean()), float(numbers.std()) or 1.0))
        return cls(
            schema, panel.grid.step, season, tuple(calendar), scaling, tuple(words), tuple(reals), tuple(relative)
        )

    @property
    def layout(self) -> Layout:
        """Return what a row of windows holds."""
        schema = self.schema
        known = len(schema.known) + calendar_features(np.zeros(1, np.int64), self.calendar).shape[-1]
        return Layout(len(schema.targets), len(schema.observed), known)

    @property
    def relative_columns(self) -> list[int]:
        """Return the places of the relative targets."""
        return [self.schema.targets.index(name) for name in self.relative]

    @property
    def static_categories(self) -> tuple[int, ...]:
        """Return the number of values of each categorical static, the unseen included."""
        return tuple(len(words) + 1 for words in self.words if words)

    @property
    def static_reals(self) -> int:
        """Return the number of real statics."""
        return sum(not words for words in self.words)

    def statics(self, values: Sequence[Sequence[Static]]) -> dict[str, Tensor]:
        """Return the statics of series as tensors [series, S] and [series, R], those that there are."""
        categories, reals = [], []
        for row in values:
            places = [
                words.index(value) + 1 if value in words else UNSEEN
                for value, words in zip(row, self.words, strict=True)
                if words
            ]
            numbers = [
                (value - mean) / deviation if isinstance(value, float) else 0.0
                for value, words, (mean, deviation) in zip(row, self.words, self.reals, strict=True)
                if not words
            ]
            categories.append(places)
            reals.append(numbers)
        found = {}
        if self.static_categories:
            found["static_categorical_features"] = torch.tensor(categories, dtype=torch.long)
        if self.static_reals:
            found["static_real_features"] = torch.tensor(reals, dtype=torch.float32)
        return found

    def store(self, panel: Panel, scaling: Scaling | None = None) -> Store:
        """Return the series as tensors for windows, scaled.

        Args:
            panel: the series.
            scaling: of its series; what was learned, if they are the ones of training.
        """
        scaling = scaling or self.scaling
        targets = len(self.schema.targets)
        measured = np.isfinite(panel.values)
        scaled = scaling.scaled(panel.values, panel.series)
        # What is relative is scaled window by window.
        columns = self.relative_columns
        scaled[:, columns] = panel.values[:, columns]
        calendar = calendar_features(panel.times, self.calendar)
        count = scaled.shape[1]
        rows = np.empty((len(panel), count + calendar.shape[1]), np.float32)
        rows[:, :count] = np.where(measured, scaled, 0.0)
        rows[:, count:] = calendar
        first = np.searchsorted(panel.series, np.arange(len(panel.names)))
        facts = np.stack([scaling.loc[:, :targets], scaling.scale[:, :targets], scaling.season_error], axis=1)
        places = np.stack([panel.series, np.arange(len(panel)) - first[panel.series], panel.times], axis=1)
        mask = measured[:, :targets]
        relative = torch.zeros(targets, dtype=torch.bool)
        relative[columns] = True
        return Store(
            self.layout,
            torch.from_numpy(rows),
            None if mask.all() else torch.from_numpy(np.ascontiguousarray(mask)),
            torch.from_numpy(places),
            torch.from_numpy(facts.astype(np.float32)),
            self.statics(panel.statics),
            self.schema.targets,
            tuple(panel.names),
            relative if columns else None,
            torch.from_numpy(panel.times[:, None]) if isinstance(panel.grid, Bars) else None,
            ~relative if scaling.asinh else None,
            self.season,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "schema": self.schema.document(),
            "step": self.step,
            "season": self.season,
            "calendar": list(self.calendar),
            "scaling": self.scaling.state_dict(),
            "words": [list(words) for words in self.words],
            "reals": [list(pair) for pair in self.reals],
            "relative": list(self.relative),
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Learned:
        """Return what `state_dict` gave."""
        return cls(
            Schema.of(state["schema"]),
            state["step"],
            state["season"],
            tuple(state["calendar"]),
            Scaling.of(state["scaling"]),
            tuple(tuple(words) for words in state["words"]),
            tuple((mean, deviation) for mean, deviation in state["reals"]),
            tuple(state["relative"]),
        )

"""Folds of cross-validation in time: each fold is a split of its own, and time is never shuffled.

Rolling origin: Tashman, International Journal of Forecasting 16(4), 2000. Purged k-fold with an embargo: Lopez de
Prado, Advances in Financial Machine Learning, 2018, chapter 7; unlike there, the whole span of a training window
counts, past and horizon, and the embargo stands on both sides of validation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from trainkit.errors import DataError, UsageError

from .panel import Panel, stamp
from .splitting import Part, Parts, training

Folding = Literal["expanding", "rolling", "purged"]


@dataclass(frozen=True)
class Fold:
    """Name one fold of several.

    Args:
        number: from 1.
        count: of all folds.
        folding: expanding, rolling or purged.
    """

    number: int
    count: int
    folding: Folding

    def __str__(self) -> str:
        return f"{self.number}/{self.count}, {self.folding}"

    @classmethod
    def of(cls, text: str | None, folding: Folding) -> Fold | None:
        """Return the fold that a text as 2/5 names; raise UsageError if it names none."""
        if text is None:
            return None
        match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if count < 2 or not 1 <= number <= count:
            raise UsageError(
                f"task.fold = {text!r} names no fold",
                why="it is the number of a fold and how many there are, two at least",
                do="as 2/5: the second of five",
            )
        return cls(number, count, folding)


def folded(panel: Panel, parts: Parts, fold: Fold, purge: int, horizon: int) -> Parts:
    """Return training and validation of a fold; the test stays what it is.

    Expanding and rolling cut the validation part into spans, and train on what lies before: on all of it, or on as
    much as the training part is long. Purged cuts training and validation part together into spans, and trains on
    what lies before and after, each training window wholly on one side.

    Args:
        panel: the series.
        parts: without folds.
        fold: which one.
        purge: steps on either side of a validation span, and before the test, that belong to no part.
        horizon: steps that are forecast.

    Raises:
        DataError: a validation span is shorter than a horizon.
    """
    train, val, test = parts
    begin, end = (train.begin if fold.folding == "purged" else val.begin), val.end
    edges = _edges(panel, begin, end, fold.count)
    _check_spans(panel, edges, fold, horizon)
    first, last = edges[fold.number - 1], edges[fold.number]
    gap = purge * panel.grid.step
    since = first - (val.begin - train.begin) if fold.folding == "rolling" else train.begin
    spans = [(since, first - gap)]
    if fold.folding == "purged":
        spans.append((last + gap, end))
    kept = [span for span in spans if span[0] < span[1]] or [(since, since)]
    return training(tuple(kept)), Part("val", ((first, last),)), test


def _edges(panel: Panel, begin: int, end: int, count: int) -> list[int]:
    """Return where `count` spans of as many rows begin, and where the last one ends."""
    times = np.sort(panel.times[(panel.times >= begin) & (panel.times < end)])
    places = [round(number * len(times) / count) for number in range(count)]
    return [begin if not place or not len(times) else int(times[place]) for place in places] + [end]


def _check_spans(panel: Panel, edges: list[int], fold: Fold, horizon: int) -> None:
    # The end may lie long after the last row.
    last = min(edges[-1], int(panel.times.max()) + panel.grid.step)
    steps = [(after - before) // panel.grid.step for before, after in zip(edges, [*edges[1:-1], last], strict=False)]
    if min(steps) >= horizon:
        return
    whole = max(0, (last - edges[0]) // panel.grid.step)
    what = "training and validation" if fold.folding == "purged" else "validation"
    raise DataError(
        f"{fold.count} folds do not fit",
        where=f"{what} from {stamp(edges[0])} to {stamp(last)}, {whole} steps",
        why=f"a fold validates on {max(0, min(steps))} steps, and a window has targets in task.horizon = {horizon}",
        do=f"give at most {whole // horizon} folds, a larger share of validation in task.split, or a smaller horizon"
        if whole >= 2 * horizon
        else "give a larger share of validation in task.split, a smaller horizon, or more data",
    )

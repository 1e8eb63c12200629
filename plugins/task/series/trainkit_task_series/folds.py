"""Folds of cross-validation in time: each fold is a split of its own, and time is never shuffled.

Rolling origin: Tashman, International Journal of Forecasting 16(4), 2000. Purged k-fold with an embargo: Lopez de
Prado, Advances in Financial Machine Learning, 2018, chapter 7; unlike there, the whole span of a training window
counts, past and horizon, and the embargo stands on both sides of validation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from trainkit.errors import DataError, UsageError
from trainkit.folds.fold import ALL, fold_numbers

from .grid import stamp
from .panel import Panel
from .splitting import Part, Parts, training
from .times import Times

Folding = Literal["expanding", "rolling", "purged"]


@dataclass(frozen=True)
class Fold:
    """Name one fold of several.

    Args:
        number: from 1.
        count: of all folds; with 1 the rows of validation train, too, and none are validated on.
        folding: expanding, rolling or purged.
    """

    number: int
    count: int
    folding: Folding

    def __str__(self) -> str:
        return f"{self.number}/{self.count}, {self.folding}" if self.validates else ALL

    @property
    def validates(self) -> bool:
        """Return whether there are rows to validate on."""
        return self.count > 1

    @classmethod
    def of(cls, text: str | None, folding: Folding) -> Fold | None:
        """Return the fold that a text as 2/5, or all, names; raise UsageError if it names none."""
        if text is None:
            return None
        if text == ALL:
            return cls(1, 1, folding)
        if (numbers := fold_numbers(re.sub(r"\s*/\s*", "/", text.strip()))) is None:
            raise UsageError(
                f"task.fold = {text!r} names no fold",
                why="it is the number of a fold and how many there are, two at least, or 'all'",
                do="as 2/5: the second of five",
            )
        return cls(*numbers, folding)


def folded(panel: Panel, parts: Parts, fold: Fold, purge: int, horizon: int) -> Parts:
    """Return training and validation of a fold; the test stays what it is.

    Expanding and rolling: the last fold validates on the validation part, each one before on as many rows before that.
    Expanding trains on all that lies before, rolling on as much time as the first fold has. Purged cuts training and
    validation part together into spans, and trains on what lies before and after, each window wholly on one side. All
    rows before the test train where the fold is 'all'.

    Args:
        panel: the series.
        parts: without folds.
        fold: which one.
        purge: steps on either side of a validation span, and before the test, that belong to no part.
        horizon: steps that are forecast.

    Raises:
        DataError: there are not as many spans of a horizon.
    """
    train, val, test = parts
    if not fold.validates:
        return training(((train.begin, val.end),)), Part("val", ((val.end, val.end),)), test
    times = np.sort(panel.times[panel.times < val.end])
    if fold.folding == "purged":
        places = [round(number * len(times) / fold.count) for number in range(fold.count)]
        edges = [int(times[place]) if len(times) else train.begin for place in places]
    else:
        edges = [*_earlier(times, val, fold), val.begin]
    edges.append(val.end)
    _check_spans(panel, edges, fold, horizon)
    first, last = edges[fold.number - 1], edges[fold.number]
    since = first - (edges[0] - train.begin) if fold.folding == "rolling" else train.begin
    spans = [(since, panel.grid.earlier(first, purge))]
    if fold.folding == "purged":
        spans.append((panel.grid.earlier(last, -purge), val.end))
    kept = [span for span in spans if span[0] < span[1]] or [(since, since)]
    return training(tuple(kept)), Part("val", ((first, last),)), test


def _earlier(times: Times, val: Part, fold: Fold) -> list[int]:
    """Return where the validation of each fold but the last begins, a validation part apart."""
    before = int(np.searchsorted(times, val.begin))
    size = len(times) - before
    places = [before - size * number for number in range(fold.count - 1, 0, -1)]
    if not size:
        why, most, share = "the validation part has no row", 0, "a share"
    elif places[0] < 1:
        why = f"each validates on {size} rows, as the validation part has, and {before} rows lie before that"
        most, share = (before - 1) // size + 1, "a smaller share"
    else:
        return [int(times[place]) for place in places]
    fewer = f"at most {most} folds, " if most > 1 else ""
    raise DataError(
        f"{fold.count} folds do not fit",
        where="task.fold",
        why=why,
        do=f"give {fewer}{share} of validation in task.split, or --set task.folding=purged",
    )


def _check_spans(panel: Panel, edges: list[int], fold: Fold, horizon: int) -> None:
    fewest = min(_steps(panel, begin, end) for begin, end in pairwise(edges))
    if fewest < horizon:
        raise DataError(
            f"{fold.count} folds do not fit",
            where=f"validation from {stamp(edges[0])} to {stamp(edges[-1])}",
            why=f"one of them validates on {fewest} steps of a series, fewer than task.horizon = {horizon}",
            do="give fewer folds or more rows (for expanding and rolling a larger share of validation in task.split)",
        )


def _steps(panel: Panel, begin: int, end: int) -> int:
    """Return how many steps the longest series has in a span."""
    inside = panel.series[(panel.times >= begin) & (panel.times < end)]
    return int(np.bincount(inside).max()) if len(inside) else 0

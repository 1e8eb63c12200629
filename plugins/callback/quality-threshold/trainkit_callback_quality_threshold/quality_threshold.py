"""A bar for the quality of samples that rises from epoch to epoch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import NonNegativeFloat, PositiveInt
from trainkit import UsageError, hookimpl
from trainkit.narrowing import Epoch, Indices, admitted_by, epoch_of

if TYPE_CHECKING:
    from trainkit.contracts import Dataset
    from trainkit.live import Run

Numbers = np.ndarray[Any, np.dtype[np.float64]]
# .5 + 5 * .05 is a little more than .75, and a score of .75 is not to fall to that.
ROUNDING = 1e-9
_log = logging.getLogger(__name__)


def stepped(epoch: int, start: float, end: float, step: float) -> float:
    """Return the bar of an epoch, counted from 0: min(end, start + step epoch)."""
    return min(end, start + step * epoch)


def linear(epoch: int, epochs: int, start: float, end: float) -> float:
    """Return the bar of an epoch of a run, counted from 0: start + (end - start) epoch / (epochs - 1)."""
    return start + (end - start) * min(1.0, epoch / max(1, epochs - 1))


def good_enough(indices: Indices, quality: Numbers, bar: float, least: int) -> Indices:
    """Return the indices whose quality is at least the bar; the `least` best ones if those were fewer.

    Args:
        indices: ascending.
        quality: of all samples; infinity for one that is always admitted, minus infinity for one that never is.
        bar: the least quality.
        least: how many are needed.
    """
    admitted = indices[quality[indices] >= bar - ROUNDING]
    if len(admitted) >= min(least, len(indices)):
        return admitted
    return np.sort(indices[np.argsort(-quality[indices], kind="stable")[:least]])


class QualityThreshold:
    """Train on samples whose quality lies above a bar that rises from epoch to epoch.

    It selects before a curriculum and before data dropout, so that these choose among good samples. Where fewer than
    `min_samples` are good enough, the best ones make up for it, with a warning. The plan counts the steps of its
    epochs.

    Args:
        start: the bar of the first epoch.
        end: the highest bar.
        step: by how much it rises an epoch.
        mode: stepped rises by `step` up to `end`; linear reaches `end` in the last epoch.
        missing: whether samples without a quality are kept or dropped.
        min_samples: least samples of an epoch; a batch if not set.
    """

    def __init__(
        self,
        start: float = 0.5,
        end: float = 0.75,
        step: NonNegativeFloat = 0.05,
        mode: Literal["stepped", "linear"] = "stepped",
        missing: Literal["keep", "drop"] = "keep",
        min_samples: PositiveInt | None = None,
    ) -> None:
        if end < start:
            raise UsageError(
                f"the bar of quality cannot rise from {start:g} to {end:g}",
                where="callback.quality-threshold.end",
                do="give an end that is not below start",
            )
        self.start, self.end, self.step, self.mode = start, end, step, mode
        self.missing, self.min_samples = missing, min_samples
        self._scored: tuple[Dataset | None, Numbers] = (None, np.empty(0))
        self._has_told = False

    def bar(self, epoch: Epoch) -> float:
        """Return the least quality that an epoch admits."""
        if self.mode == "linear":
            return linear(epoch.number, epoch.total, self.start, self.end)
        return stepped(epoch.number, self.start, self.end, self.step)

    def admit(self, indices: Indices, train: Dataset, epoch: Epoch) -> Indices:
        """Return the samples that an epoch admits; raise UsageError if the data tells the quality of none."""
        least = self.min_samples or epoch.batch_size
        return good_enough(indices, self._quality(train), self.bar(epoch), least)

    def _quality(self, train: Dataset) -> Numbers:
        if self._scored[0] is not train:
            self._scored = (train, self._scores(train))
        return self._scored[1]

    def _scores(self, train: Dataset) -> Numbers:
        quality = getattr(train, "quality", None)
        found = np.array(np.nan if quality is None else quality, dtype=np.float64)
        if np.isnan(found).all():
            raise UsageError(
                "a quality threshold needs the quality of samples, and the training data does not tell",
                where="callback quality-threshold",
                do="leave it out by --callback no:quality-threshold, or give the dataset the attribute `quality`",
            )
        return np.where(np.isnan(found), np.inf if self.missing == "keep" else -np.inf, found)

    @hookimpl(tryfirst=True)
    def select_samples(self, run: Run, indices: Sequence[int]) -> Sequence[int]:
        """Answer with the samples that this epoch admits."""
        answer, bar = admitted_by(self, run, indices), self.bar(epoch_of(run))
        if not self._has_told and any(self._quality(run.splits.train)[answer] < bar - ROUNDING):
            self._has_told = True
            text = "quality-threshold: too few samples have a quality of %.2f; the best %d are taken"
            _log.warning(text, bar, len(answer))
        if not run.moment.windows:
            run.record("quality-threshold/admitted", len(answer))
            run.record("quality-threshold/bar", bar)
        return answer

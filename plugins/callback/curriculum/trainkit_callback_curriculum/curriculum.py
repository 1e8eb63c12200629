"""A curriculum over samples ranked by difficulty: how far it reaches, as a function of the epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt
from trainkit import UsageError, hookimpl
from trainkit.narrowing import Epoch, Indices, admitted_by, epoch_of

if TYPE_CHECKING:
    from trainkit.contracts import Dataset
    from trainkit.live import Run

Share = Annotated[float, Field(gt=0, le=1)]
Numbers = np.ndarray[Any, np.dtype[np.float64]]
LEAST_SHARE = 0.01
_log = logging.getLogger(__name__)


def competence(time: float, duration: float, start: float = 0.01, power: float = 2.0) -> float:
    """Return the share of easiest samples that a learner is ready for: min(1, (t (1 - c0^p) / T + c0^p)^(1/p)).

    Args:
        time: t, from 0.
        duration: T, at which it is 1.
        start: c0, the share at time 0.
        power: p; 1 rises linearly, 2 as a square root.

    Source: Platanios et al. 2019, arXiv 1903.09848 [paper].
    """
    least_power = start**power
    return float(min(1.0, (time * (1 - least_power) / duration + least_power) ** (1 / power)))


def ranks(difficulty: Sequence[float]) -> Numbers:
    """Return the share of samples that are as easy or easier, in (0, 1]; of equals the first is easier."""
    found = np.empty(len(difficulty))
    found[np.argsort(np.asarray(difficulty, dtype=np.float64), kind="stable")] = np.arange(1, len(difficulty) + 1)
    return found / len(difficulty)


def stage_of(epoch: int, total: int, ends: Sequence[float], latest: Sequence[int] = ()) -> int:
    """Return the number of an epoch's stage: how many ends lie behind.

    Args:
        epoch: epochs before it.
        total: epochs of the run.
        ends: of the stages, as shares of the run.
        latest: the same in epochs; of both the earlier one counts.
    """
    by_share = sum(epoch / total >= end for end in ends)
    return max(by_share, sum(epoch >= end for end in latest))


def easiest(indices: Indices, measure: Numbers, bar: float, least: int) -> Indices:
    """Return the indices whose measure is at most the bar; the easiest ones if those were fewer than `least`."""
    admitted = indices[measure[indices] <= bar]
    if len(admitted) >= min(least, len(indices)):
        return admitted
    return np.sort(indices[np.argsort(measure[indices], kind="stable")[:least]])


class Curriculum:
    """Train on easy samples first, and admit harder ones from epoch to epoch.

    competence admits the easiest share c of all training samples in an epoch, which grows from `start` to 1 over the
    first part of the run; staged admits those up to a bar until a share of the run is over, then up to the next, then
    all. Of samples that others select it admits those that it admits of all; where these are fewer than a batch, the
    easiest max(batch, 1 % of all), with a warning. Time is counted in epochs, and the plan counts the steps of its
    short epochs.

    Args:
        mode: competence or staged.
        start: competence: the share of samples in the first epoch.
        power: competence: 1 for a share that grows linearly, 2 for a square root, more for a faster start.
        until: competence: the share of the run's epochs after which all samples are admitted.
        bars: staged: the bar of each stage, ascending.
        ends: staged: the share of the run's epochs at which each of these stages ends, ascending.
        latest: staged: the epochs after which they end at the latest, in a run of however many, ascending.
        by: staged: whether bars are shares of the samples by rank of difficulty, or difficulties.

    Source: Platanios et al. 2019, arXiv 1903.09848 [paper]; time in epochs instead of steps [reading].

    Attributes:
        admits_easy_first: what components that keep the hard samples ask for before they work beside this one.
    """

    admits_easy_first = True

    def __init__(
        self,
        mode: Literal["competence", "staged"] = "competence",
        start: Share = 0.01,
        power: PositiveFloat = 2.0,
        until: Share = 0.5,
        bars: tuple[float, ...] = (0.33, 0.67),
        ends: tuple[Share, ...] = (0.2, 0.5),
        latest: tuple[PositiveInt, ...] = (),
        by: Literal["rank", "difficulty"] = "rank",
    ) -> None:
        if len(bars) != len(ends) or not bars:
            raise UsageError(
                f"a staged curriculum needs an end for each bar (got {len(bars)} bars, {len(ends)} ends)",
                where="callback.curriculum.ends",
                do="as in bars=[0.33, 0.67], ends=[0.2, 0.5]",
            )
        if latest and len(latest) != len(ends):
            raise UsageError(
                f"each end of a curriculum has a latest epoch, or none has (got {len(latest)} for {len(ends)} ends)",
                where="callback.curriculum.latest",
                do="as in ends=[0.33, 0.67], latest=[2, 4]",
            )
        if any(later <= before for numbers in (bars, ends, latest) for before, later in pairwise(numbers)):
            raise UsageError("bars and ends of a curriculum must ascend", where="callback.curriculum.bars")
        if by == "rank" and not all(0 < bar <= 1 for bar in bars):
            raise UsageError(
                "bars by rank are shares of the samples, above 0 and at most 1",
                where="callback.curriculum.bars",
                do="set by=difficulty if these are difficulties",
            )
        self.mode, self.start, self.power, self.until = mode, start, power, until
        self.bars, self.ends, self.latest, self.by = tuple(bars), tuple(ends), tuple(latest), by
        self._ranked: tuple[Dataset | None, Numbers] = (None, np.empty(0))
        self._has_told = False

    def bar(self, epoch: Epoch) -> float:
        """Return up to where samples are admitted in an epoch: a share of ranks, or a difficulty; infinity for all."""
        if self.mode == "competence":
            return competence(epoch.number, self.until * epoch.total, self.start, self.power)
        return (*self.bars, math.inf)[stage_of(epoch.number, epoch.total, self.ends, self.latest)]

    def admit(self, indices: Indices, train: Dataset, epoch: Epoch) -> Indices:
        """Return the samples that an epoch admits.

        Raises:
            UsageError: the data has no difficulty, or the first stage would have no sample at all.
        """
        return easiest(indices, self._measure(train), self.bar(epoch), least(epoch.batch_size, len(train)))

    def _measure(self, train: Dataset) -> Numbers:
        if self._ranked[0] is not train:
            self._ranked = (train, self._measured(train))
        return self._ranked[1]

    def _measured(self, train: Dataset) -> Numbers:
        difficulty = getattr(train, "difficulty", None)
        if difficulty is None:
            raise UsageError(
                "a curriculum needs to know how difficult samples are, and the training data does not tell",
                where="callback curriculum",
                do="leave it out by --callback no:curriculum, or give the dataset the attribute `difficulty`",
            )
        if self.mode == "competence" or self.by == "rank":
            return ranks(difficulty)
        found = np.asarray(difficulty, dtype=np.float64)
        if not (found <= self.bars[0]).any():
            raise UsageError(
                f"the first stage of the curriculum is empty: no sample has a difficulty up to {self.bars[0]:g}",
                where="callback.curriculum.bars",
                why=f"difficulties reach from {np.nanmin(found):g} to {np.nanmax(found):g}",
                do="raise the first bar, or set by=rank for shares of the samples",
            )
        return found

    @hookimpl
    def select_samples(self, run: Run, indices: Sequence[int]) -> Sequence[int]:
        """Answer with the samples that this epoch admits."""
        answer, epoch = admitted_by(self, run, indices), epoch_of(run)
        measure, bar = self._measure(run.splits.train), self.bar(epoch)
        if not self._has_told and any(measure[answer] > bar):
            self._has_told = True
            text = "curriculum: fewer samples than a batch are as easy as it asks for; the easiest %d are taken"
            _log.warning(text, len(answer))
        if not run.moment.windows:
            run.record("curriculum/admitted", len(answer))
            run.record("curriculum/bar", min(bar, float(np.nanmax(measure))))
        return answer


def least(batch_size: int, samples: int) -> int:
    """Return how many samples an epoch needs at least: a batch, or 1 % of all if that is more."""
    return max(batch_size, math.ceil(LEAST_SHARE * samples))

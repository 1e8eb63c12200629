"""Fewer samples in some epochs: what callbacks admit as a function of the epoch, so that steps are known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from .data import select
from .events import resolve
from .plan import Selection, Stage, StageLength, stage_length

if TYPE_CHECKING:
    from .contracts import Dataset
    from .live import Run
    from .moment import Moment
    from .parts import Part
    from .settings import RunSettings
    from .stages import PlannedStage

Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Epoch:
    """Say where an epoch lies in a plan.

    Args:
        number: epochs before it.
        left: epochs to the end of the plan, this one included; at least 1.
        batch_size: samples of a micro-batch.
        seed: the run's.
    """

    number: int
    left: int
    batch_size: int = 1
    seed: int = 0

    @property
    def total(self) -> int:
        """Return the epochs of the whole plan."""
        return self.number + self.left


@runtime_checkable
class Narrows(Protocol):
    """Be a callback whose `select_samples` follows from the epoch alone.

    A plan then counts the steps that there will be, so that schedules end where the training ends. Its event answers
    with `admit(indices, run.splits.train, epoch_of(run))`.
    """

    def admit(self, indices: Indices, train: Dataset, epoch: Epoch) -> Indices:
        """Return those of the ascending indices that an epoch admits, ascending; at least one."""
        ...


@runtime_checkable
class Counts(Narrows, Protocol):
    """Be a callback that knows how many samples it admits without a look at them, which is faster."""

    def count(self, samples: int, epoch: Epoch) -> int:
        """Return how many of so many samples an epoch admits."""
        ...


def epoch_of(run: Run) -> Epoch:
    """Return the epoch in which a run is, or which is about to begin."""
    number, left = run.moment.epoch, epochs_left(run.stages, run.moment)
    return Epoch(number, left, run.settings.loop.batch_size, run.settings.seed)


def admitted_by(narrowing: Narrows, run: Run, indices: Sequence[int]) -> list[int]:
    """Return the answer of a callback that narrows to the event `select_samples`."""
    admitted: list[int] = narrowing.admit(np.asarray(indices, dtype=np.int64), run.splits.train, epoch_of(run)).tolist()
    return admitted


def epochs_left(stages: Sequence[PlannedStage], moment: Moment) -> int:
    """Return the epochs to the end of a plan, the present one included; a stage that lasts steps counts whole ones."""
    if moment.stage >= len(stages):
        return 1
    now, later = stages[moment.stage], stages[moment.stage + 1 :]
    is_inside = moment.stage_started
    if now.stage.epochs is not None:
        left = now.length.epochs - (moment.epoch - moment.stage_epoch if is_inside else 0)
    else:
        done = moment.step - moment.stage_step if is_inside else 0
        left = math.ceil((now.length.steps - done) / now.length.steps_per_epoch)
    return max(1, left) + sum(_epochs(planned.stage, planned.length) for planned in later)


def _epochs(stage: Stage, length: StageLength) -> int:
    return stage.epochs if stage.epochs is not None else math.ceil(length.steps / length.steps_per_epoch)


def narrowing_callbacks(parts: Iterable[tuple[str, Part]]) -> list[Narrows]:
    """Return the callbacks that narrow, built, in the order in which they hear `select_samples`."""
    built = [(f"callback {name}", part.build()) for name, part in parts if hasattr(part.component.target, "admit")]
    heard = (getattr(listener, "__self__", None) for listener in resolve(built).select_samples)
    return [callback for callback in heard if isinstance(callback, Narrows)]


@dataclass(frozen=True)
class Narrowed:
    """Count the samples and steps of stages in which callbacks narrow.

    Args:
        settings: of the run.
        train: what is learned from.
        narrowing: the callbacks, in the order in which they are asked.
    """

    settings: RunSettings
    train: Dataset
    narrowing: Sequence[Narrows]

    def length(self, stage: Stage, full: StageLength, first_epoch: int, later: int) -> StageLength:
        """Return the length of a stage: fewer steps in as many epochs, or as many steps in more epochs.

        Args:
            stage: the stage.
            full: its length if nobody narrowed.
            first_epoch: epochs before it.
            later: epochs after it.
        """
        loop, count = self.settings.loop, self._counter(stage.selection)
        steps = epochs = 0
        while steps < full.steps and (stage.epochs is None or epochs < stage.epochs):
            left = (
                math.ceil((full.steps - steps) / full.steps_per_epoch)
                if stage.epochs is None
                else (stage.epochs - epochs)
            )
            samples = count(Epoch(first_epoch + epochs, left + later, loop.batch_size, self.settings.seed))
            steps += stage_length(stage, samples, loop.variants, loop.batch_size, loop.accumulate).steps_per_epoch
            epochs += 1
        return full.model_copy(update={"steps": min(steps, full.steps), "epochs": epochs})

    def _counter(self, selection: Selection) -> Callable[[Epoch], int]:
        seed = self.settings.seed
        # Only a random fraction is drawn anew each epoch.
        fixed = None if selection.fraction < 1 else np.array(select(selection, self.train, seed, 0), dtype=np.int64)

        def count(epoch: Epoch) -> int:
            indices = fixed
            if indices is None:
                indices = np.array(select(selection, self.train, seed, epoch.number), dtype=np.int64)
            for narrowing in self.narrowing[:-1]:
                indices = narrowing.admit(indices, self.train, epoch)
            last = self.narrowing[-1]
            if isinstance(last, Counts):
                return last.count(len(indices), epoch)
            return max(1, len(last.admit(indices, self.train, epoch)))

        return count


def epochs_after(stages: Sequence[Stage], lengths: Sequence[StageLength], place: int) -> int:
    """Return the epochs of the stages after this one if nobody narrowed."""
    return sum(_epochs(*pair) for pair in zip(stages[place + 1 :], lengths[place + 1 :], strict=True))

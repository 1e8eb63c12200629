"""The outline of a plan over its steps: samples, evaluations, and what callbacks tell of themselves beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from .conformity import asked
from .costs.ahead import epoch_ends
from .data import select
from .narrowing import Epoch, narrowing_callbacks
from .report import counted

if TYPE_CHECKING:
    from .draft import Draft
    from .plan import ParameterGroup, Stage
    from .stages import PlannedStage

MOST_EPOCHS_COUNTED = 120


@dataclass(frozen=True)
class Course:
    """Say what a callback may know of the plan that it is a part of.

    Args:
        epoch_ends: the step at which each epoch ends.
        groups: the top-level parts of the model, in its order.
    """

    epoch_ends: Sequence[int]
    groups: Sequence[ParameterGroup] = ()

    @property
    def total_steps(self) -> int:
        """Return the optimizer steps of the plan."""
        return self.epoch_ends[-1]

    def first_step(self, epoch: int) -> int:
        """Return the step with which an epoch begins, counted from 0."""
        return self.epoch_ends[epoch - 1] if epoch else 0


@runtime_checkable
class Outlines(Protocol):
    """Be a callback that can tell before a run what it will do when."""

    def outline(self, course: Course) -> Sequence[tuple[int, str]]:
        """Return (step, text) pairs in order: in a word or two, what holds from a step on."""
        ...


@dataclass(frozen=True)
class Track:
    """Hold one line of an outline.

    Args:
        name: what it is about.
        marks: (step, text) pairs in order: what holds from a step on.
        levels: (step, share) pairs in order: a share in [0, 1] that holds from a step on.
        text: what it comes to.
    """

    name: str
    marks: tuple[tuple[int, str], ...] = ()
    levels: tuple[tuple[int, float], ...] = ()
    text: str = ""


def outline(draft: Draft) -> list[Track]:
    """Return samples, evaluations and what callbacks tell of themselves; the stages are the draft's."""
    course = Course(epoch_ends(draft.stages), draft.situation.parameter_groups)
    tracks = []
    if samples := sample_track(draft, course):
        tracks.append(samples)
    for name, part in draft.lists["callback"].items():
        if hasattr(part.component.target, "outline"):
            callback = part.build()
            with asked(f"callback {name}", "outline its course"):
                marks = tuple((int(step), str(text)) for step, text in callback.outline(course))
            tracks.append(Track(name, marks))
    tracks.append(evaluation_track(draft, course))
    return tracks


def sample_track(draft: Draft, course: Course) -> Track | None:
    """Return the share of the training samples that each epoch learns from; None where it is all of them throughout."""
    narrowing = narrowing_callbacks(draft.lists["callback"].items())
    stages = draft.stages
    if not narrowing and all(planned.length.samples == stages[0].length.samples for planned in stages):
        return None
    levels, train, total = [], draft.splits.train, len(course.epoch_ends)
    every = max(1, total // MOST_EPOCHS_COUNTED)
    for planned in stages:
        indices: Any = None
        for number in range(planned.first_epoch, planned.first_epoch + planned.length.epochs, every):
            if indices is None or planned.stage.selection.fraction < 1:
                seed = draft.settings.seed
                indices = np.array(select(planned.stage.selection, train, seed, number), dtype=np.int64)
            epoch = Epoch(number, max(1, total - number), draft.settings.loop.batch_size, draft.settings.seed)
            admitted = indices
            for callback in narrowing:
                admitted = callback.admit(admitted, train, epoch)
            levels.append((course.first_step(number), len(admitted) / len(train)))
    shares = [share for _, share in levels]
    low, high = min(shares), max(shares)
    return Track("samples", levels=tuple(levels), text=f"{low:.0%} to {high:.0%} of the training samples in an epoch")


def evaluation_track(draft: Draft, course: Course) -> Track:
    """Return the steps at which the validation split is evaluated, each as a mark without a text."""
    evaluate = draft.settings.evaluate
    if draft.splits.val is None:
        return Track("evaluated", text="never: there is no validation split")
    ends, last = course.epoch_ends, draft.total_steps
    steps = {last, *ends[evaluate.every_epochs - 1 :: evaluate.every_epochs]} if evaluate.every_epochs else {last}
    if evaluate.every_steps:
        steps |= set(range(evaluate.every_steps, last + 1, evaluate.every_steps))
    return Track("evaluated", tuple((step, "") for step in sorted(steps)), text=counted(len(steps), "time"))


def stage_text(planned: PlannedStage) -> str:
    """Return in a few words how long a stage is and what it learns from."""
    parts = [counted(planned.length.epochs, "epoch") if planned.stage.epochs else counted(planned.length.steps, "step")]
    return ", ".join([*parts, *restrictions(planned.stage)])


def restrictions(stage: Stage) -> list[str]:
    """Return what sets a stage apart from one that learns everything, from all samples, at the whole rate."""
    found, selection = [], stage.selection
    if selection.easiest < 1:
        found.append(f"easiest {selection.easiest:.0%}")
    if selection.min_quality is not None:
        found.append(f"quality {selection.min_quality:g} up")
    if selection.fraction < 1:
        found.append(f"{selection.fraction:.0%} drawn")
    if stage.lr_factor != 1:
        found.append(f"rate x {stage.lr_factor:g}")
    if stage.trainable != ("*",):
        found.append(f"learns {' '.join(stage.trainable)}")
    return found

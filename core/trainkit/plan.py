"""What a strategy looks at and what it answers with: plain data, printable and storable."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

Share = Annotated[float, Field(gt=0, le=1)]


class Record(BaseModel):
    """Be immutable, and refuse what is not a field."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ParameterGroup(Record):
    """Count the parameters of one top-level part of the model."""

    name: str
    parameters: int


class Technique(Record):
    """Say how a task makes use of a technique of training, or why it cannot.

    Args:
        settings: by dotted key, what switches it on.
        strength: which of these keys says how much of it there is; '' where it is on or off.
        trainable: patterns of the weights that it trains in a stage of their own.
        lacking: why the task cannot use it; '' where it can.
    """

    settings: dict[str, Any] = {}
    strength: str = ""
    trainable: tuple[str, ...] = ()
    lacking: str = ""


class Situation(Record):
    """Say what a strategy may know before it plans.

    Args:
        train_samples: originals in the training split.
        val_samples: samples of the validation split.
        test_samples: samples of the test split.
        device: cpu or cuda.
        devices: how many of them the run may take.
        half_precision: bf16 or fp16, where the device is faster in it; None where it is not.
        cores: of the machine.
        memory_bytes: of the device.
        parameter_groups: the parameters of each top-level part of the model.
        has_difficulty: whether samples have a difficulty.
        has_quality: whether samples have a quality.
        has_augmenter: whether something makes variants of a sample.
        folds: how many folds a cross-validation has that this is planned for, or that a run on one of them belongs to.
        defaults: the settings that the task proposes, by dotted key.
        techniques: what the task makes of techniques, by name; one that is not there it knows nothing of.
    """

    train_samples: int
    val_samples: int = 0
    test_samples: int = 0
    device: str = "cpu"
    devices: int = 1
    half_precision: Literal["bf16", "fp16"] | None = None
    cores: int = 1
    memory_bytes: int | None = None
    parameter_groups: tuple[ParameterGroup, ...] = ()
    has_difficulty: bool = False
    has_quality: bool = False
    has_augmenter: bool = False
    folds: int | None = None
    defaults: dict[str, Any] = {}
    techniques: dict[str, Technique] = {}

    @property
    def parameters(self) -> int:
        """Return the number of parameters of the whole model."""
        return sum(group.parameters for group in self.parameter_groups)


class Selection(Record):
    """Say which training samples take part.

    Args:
        easiest: the share of samples, by difficulty, that is admitted.
        min_quality: the least quality that is admitted.
        fraction: the share of the admitted samples that is drawn, anew each epoch.
    """

    easiest: Share = 1.0
    min_quality: float | None = None
    fraction: Share = 1.0


class Stage(Record):
    """Describe a stretch of a plan.

    Args:
        name: a word for tables and logs.
        epochs: length in epochs; either this or `steps`.
        steps: length in optimizer steps.
        selection: which samples take part.
        trainable: patterns of parameter names that learn, as in `fnmatch`; the others stay fixed.
        lr_factor: multiplied onto every learning rate.
        restart_schedule: whether the scheduler begins anew with this stage and spans it alone.
    """

    name: str = "train"
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    selection: Selection = Selection()
    trainable: tuple[str, ...] = ("*",)
    lr_factor: Annotated[float, Field(gt=0)] = 1.0
    restart_schedule: bool = False

    @model_validator(mode="after")
    def _one_length(self) -> Stage:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"stage '{self.name}' needs a length: either epochs or steps")
        return self


class Setting(Record):
    """Hold a value a strategy proposes for a key of the config, and why."""

    value: Any
    reason: str


class Plan(Record):
    """Answer a situation: stages, and settings by dotted key. The user's config wins over it, key by key."""

    strategy: str
    stages: tuple[Stage, ...] = Field(min_length=1)
    settings: dict[str, Setting] = {}
    notes: tuple[str, ...] = ()


class StageLength(Record):
    """Count what a stage costs: samples of an epoch, steps of an epoch, epochs and steps in all."""

    samples: int
    steps_per_epoch: int
    epochs: int
    steps: int


def admitted(selection: Selection, samples: int, qualities: list[float] | None = None) -> int:
    """Return how many of `samples` training samples a selection admits; at least one."""
    kept = samples
    if selection.min_quality is not None and qualities is not None:
        kept = sum(quality >= selection.min_quality for quality in qualities)
    kept = math.ceil(kept * selection.easiest)
    return max(1, math.ceil(kept * selection.fraction))


def stage_length(stage: Stage, samples: int, factor: int, batch_size: int, accumulate: int) -> StageLength:
    """Return the length of a stage over `samples` admitted originals, each drawn `factor` times an epoch."""
    drawn = samples * factor
    per_epoch = max(1, math.ceil(drawn / (batch_size * accumulate)))
    steps = stage.steps if stage.steps is not None else (stage.epochs or 0) * per_epoch
    return StageLength(samples=drawn, steps_per_epoch=per_epoch, epochs=math.ceil(steps / per_epoch), steps=steps)

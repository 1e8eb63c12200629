"""The stages of a plan on this data: the user's changes put in, scaled, cut, and counted in steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from .errors import unknown_key, wrong_value
from .narrowing import Narrowed, Narrows, epochs_after
from .plan import Plan, Selection, Stage, StageLength, admitted, stage_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .config import Config
    from .contracts import Dataset
    from .settings import RunSettings


@dataclass(frozen=True)
class PlannedStage:
    """Hold a stage with its length on this data."""

    stage: Stage
    length: StageLength
    first_step: int
    first_epoch: int

    @property
    def last_step(self) -> int:
        """Return the step at which the stage is over."""
        return self.first_step + self.length.steps


def with_overrides(plan: Plan, config: Config) -> Plan:
    """Return the plan with the user's `stages.NAME.key` in place of the strategy's."""
    stages = {stage.name: stage for stage in plan.stages}
    for key in config:
        first, _, rest = key.partition(".")
        if first != "stages":
            continue
        name, _, option = rest.partition(".")
        if name not in stages:
            raise unknown_key(key, [f"stages.{stage}" for stage in stages], config.origin(key))
        if option not in Stage.model_fields and not option.startswith("selection."):
            raise unknown_key(key, [f"stages.{name}.{field}" for field in Stage.model_fields], config.origin(key))
        stages[name] = _changed(stages[name], option, config[key], key, config.origin(key))
    return plan.model_copy(update={"stages": tuple(stages.values())})


def _changed(stage: Stage, option: str, value: Any, key: str, origin: str) -> Stage:
    data = stage.model_dump()
    if option.startswith("selection."):
        data["selection"][option.partition(".")[2]] = value
    else:
        data[option] = value
    if option in ("epochs", "steps") and value is not None:
        data["steps" if option == "epochs" else "epochs"] = None
    try:
        return Stage.model_validate(data)
    except ValidationError as error:
        raise wrong_value(key, value, error.errors()[0]["msg"].lower(), origin) from None


def plan_stages(
    stages: tuple[Stage, ...], settings: RunSettings, train: Dataset, narrowing: Sequence[Narrows] = ()
) -> tuple[PlannedStage, ...]:
    """Return the stages with their lengths: scaled to loop.epochs, cut at loop.max_steps.

    Where callbacks narrow, an epoch has as many steps as they leave; a stage that is cut then lasts its steps.
    """
    loop = settings.loop
    if loop.epochs is not None:
        stages = scale_epochs(stages, loop.epochs)
    lengths = [_full_length(stage, settings, train) for stage in stages]
    narrowed = Narrowed(settings, train, narrowing)
    planned: list[PlannedStage] = []
    step = epoch = 0
    for place, (stage, full) in enumerate(zip(stages, lengths, strict=True)):
        length = narrowed.length(stage, full, epoch, epochs_after(stages, lengths, place)) if narrowing else full
        if loop.max_steps is not None and step + length.steps > loop.max_steps:
            steps = loop.max_steps - step
            length = full.model_copy(update={"steps": steps, "epochs": math.ceil(steps / full.steps_per_epoch)})
            if narrowing:
                stage = stage.model_copy(update={"epochs": None, "steps": steps})
                length = narrowed.length(stage, length, epoch, later=0)
        if length.steps > 0:
            planned.append(PlannedStage(stage, length, step, epoch))
        step, epoch = step + length.steps, epoch + length.epochs
    return tuple(planned)


def _full_length(stage: Stage, settings: RunSettings, train: Dataset) -> StageLength:
    """Return the length of a stage if no callback narrowed."""
    loop = settings.loop
    samples = admitted(_known(stage.selection, train), len(train), getattr(train, "quality", None))
    return stage_length(stage, samples, loop.variants, loop.batch_size, loop.accumulate)


def _known(selection: Selection, train: Dataset) -> Selection:
    """Return the selection without what the data cannot tell."""
    without: dict[str, Any] = {}
    if getattr(train, "difficulty", None) is None:
        without["easiest"] = 1.0
    if getattr(train, "quality", None) is None:
        without["min_quality"] = None
    return selection.model_copy(update=without)


def scale_epochs(stages: tuple[Stage, ...], epochs: int) -> tuple[Stage, ...]:
    """Return stages that together last `epochs` epochs, each in proportion; one that rounds to nothing falls out."""
    lengths = [stage.epochs or 0 for stage in stages]
    total = sum(lengths)
    if total == 0:
        return tuple(stage.model_copy(update={"steps": None, "epochs": epochs}) for stage in stages[:1])
    scaled, done = [], 0
    for stage, end in zip(stages, (sum(lengths[: i + 1]) for i in range(len(lengths))), strict=True):
        share = math.floor(end * epochs / total + 0.5) - done
        done += share
        if share > 0:
            scaled.append(stage.model_copy(update={"epochs": share, "steps": None}))
    return tuple(scaled)


def schedule_span(stages: tuple[PlannedStage, ...], index: int) -> tuple[bool, int]:
    """Return whether a schedule begins with this stage, and how many steps the schedule in force spans."""
    starts = [i for i, planned in enumerate(stages) if i == 0 or planned.stage.restart_schedule]
    first = max(i for i in starts if i <= index)
    end = min((i for i in starts if i > index), default=len(stages))
    return first == index, sum(planned.length.steps for planned in stages[first:end])

"""What a recipe is worth here: a limit on its steps where a step is dear, its values on the scale of the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .config import DEFAULTS
from .plan import Setting, Situation, Stage, admitted, stage_length

EVALUATIONS_OF_SHORT_RUN = 10
DRAWS_TO_AUGMENT = 50
FEW_STEPS, RATE_OF_FEW_STEPS = 5000, 1e-3
USUAL = {"loop.batch_size": 16, "optimizer.lr": 1e-3}


@dataclass(frozen=True)
class Budget:
    """Hold what is left of a recipe on a machine.

    Args:
        stages: the stages, shortened where the machine has no accelerator.
        variants: how often an epoch draws each sample.
        steps: optimizer steps of these stages.
        full_steps: optimizer steps of the recipe.
        note: what was shortened and how to get it all; '' where nothing was.
        augments: whether what makes variants of samples is worth it.
    """

    stages: tuple[Stage, ...]
    variants: int
    steps: int
    full_steps: int
    note: str = ""
    augments: bool = True

    @property
    def is_short(self) -> bool:
        """Return whether the recipe was shortened."""
        return bool(self.note)

    def settings(self) -> dict[str, Setting]:
        """Return what a short run needs besides: more evaluations, and no augmenter where it is not worth it."""
        found = {}
        if self.is_short:
            every = max(1, self.steps // EVALUATIONS_OF_SHORT_RUN)
            reason = (
                f"a short run: about {EVALUATIONS_OF_SHORT_RUN} evaluations besides the ends of epochs, to miss no best"
            )
            found["evaluate.every_steps"] = Setting(value=every, reason=reason)
        if not self.augments:
            reason = f"a short run draws each sample fewer than {DRAWS_TO_AUGMENT} times: they stay as they are"
            found["augmenter"] = Setting(value=[], reason=reason)
        return found


@dataclass(frozen=True)
class Short:
    """Say what takes the place of a recipe that is too long for a machine.

    Args:
        stages: the stages, with as many epochs as the recipe.
        batch_size: samples of an optimizer step.
    """

    stages: tuple[Stage, ...]
    batch_size: int


def within_cpu_steps(
    situation: Situation,
    recipe: tuple[Stage, ...],
    variants: int,
    batch_size: int,
    cpu_steps: int | None,
    short: Short | None = None,
) -> Budget:
    """Return a recipe's budget: all of it on an accelerator, about `cpu_steps` optimizer steps elsewhere.

    Where nothing augments, an epoch draws each sample once. So it does, and without augmentation, in a run so short
    that it draws each sample fewer than 50 times: it has enough to learn from samples as they are [reading].

    Args:
        situation: what is known of data and machine.
        recipe: the stages, with lengths in epochs.
        variants: how often an epoch draws each sample.
        batch_size: samples of an optimizer step.
        cpu_steps: the limit; None for none.
        short: what is shortened in place of the recipe.
    """
    samples = situation.train_samples
    if not situation.has_augmenter:
        variants = 1
    limit = cpu_steps if situation.device == "cpu" else None
    full = total_steps(recipe, samples, variants, batch_size)
    stages, drawn = limit_steps(recipe, samples, variants, batch_size, limit)
    if (stages, drawn) == (recipe, variants):
        return Budget(stages, drawn, full, full)
    short = short or Short(recipe, batch_size)
    stages, drawn = limit_steps(short.stages, samples, variants, short.batch_size, limit)
    augments = situation.has_augmenter and draws(stages, drawn) >= DRAWS_TO_AUGMENT
    if not augments:
        stages, drawn = limit_steps(short.stages, samples, 1, short.batch_size, limit)
    steps = total_steps(stages, samples, drawn, short.batch_size)
    kept = f"{_epochs(stages)} of {_epochs(recipe)} epochs"
    if drawn < variants:
        kept += f" and {drawn} of {variants} variants"
    note = (
        f"no accelerator: {kept}, to stay near {limit} optimizer steps. "
        f"The full recipe takes {full:,}: --set strategy.cpu_steps=none"
    )
    return Budget(stages, drawn, steps, full, note, augments or not situation.has_augmenter)


def draws(stages: Sequence[Stage], variants: int) -> float:
    """Return how often the stages draw a sample, on average over all samples."""
    return sum((stage.epochs or 0) * variants * stage.selection.easiest for stage in stages)


def scaled(situation: Situation, key: str, preset: float) -> float:
    """Return a preset's value for a task: larger by as much as what the task proposes is larger than usual."""
    return preset * float(situation.defaults.get(key, USUAL[key])) / USUAL[key]


def batch_size_of(situation: Situation, given: int | None, preset: int) -> int:
    """Return the batch size that is given, or that of a preset on the scale of the task."""
    return given or max(1, round(scaled(situation, "loop.batch_size", preset)))


def optimizer_of(situation: Situation) -> Setting:
    """Return the optimizer that the task proposes, or the usual one."""
    usual = DEFAULTS["optimizer.use"]
    own = situation.defaults.get("optimizer.use", usual)
    return Setting(value=own, reason="the usual first choice" if own == usual else "the task's own choice")


def usual_rate(
    situation: Situation, given: float | None, reason: str, preset: float = USUAL["optimizer.lr"]
) -> Setting:
    """Return the peak learning rate: what is given, or a preset's, the usual one, on the scale of the task."""
    if given is not None:
        return Setting(value=given, reason="the rate that was asked for")
    return Setting(value=scaled(situation, "optimizer.lr", preset), reason=reason)


def rate_of(situation: Situation, given: float | None, preset: float, budget: Budget, reason: str) -> Setting:
    """Return the peak learning rate: what is given, or the preset's, or a larger one where steps are few [reading]."""
    if budget.steps < FEW_STEPS and preset < RATE_OF_FEW_STEPS:
        instead = f" instead of {budget.full_steps:,}" if budget.is_short else ""
        reason = f"{budget.steps:,} steps{instead}: few steps have to be large ones"
        preset = RATE_OF_FEW_STEPS
    return usual_rate(situation, given, reason, preset)


def precision_settings(situation: Situation) -> dict[str, Setting]:
    """Return half precision where the device is faster in it."""
    if not situation.half_precision:
        return {}
    reason = f"this {situation.device} is faster in {situation.half_precision}"
    return {"precision": Setting(value=situation.half_precision, reason=reason)}


def devices_settings(situation: Situation, batch_size: int) -> dict[str, Setting]:
    """Return several devices where there are several, no more than a batch has samples."""
    devices = min(situation.devices, batch_size)
    if devices == 1:
        return {}
    share = f"{batch_size // devices}" + (f" or {batch_size // devices + 1}" if batch_size % devices else "")
    return {"devices": Setting(value=devices, reason=f"there are several: each takes {share} samples of every batch")}


def precision_notes(situation: Situation) -> list[str]:
    """Return why half precision is left out; nothing where it is not."""
    if situation.half_precision:
        return []
    return [f"left out: half precision: this {situation.device} is not faster in it"]


def _epochs(stages: Sequence[Stage]) -> str:
    return "+".join(str(stage.epochs) for stage in stages)


def total_steps(stages: Sequence[Stage], samples: int, variants: int, batch_size: int) -> int:
    """Return the optimizer steps of all stages together, without accumulation."""
    return sum(stage_length(s, admitted(s.selection, samples), variants, batch_size, 1).steps for s in stages)


def limit_steps(
    stages: Sequence[Stage], samples: int, variants: int, batch_size: int, limit: int | None
) -> tuple[tuple[Stage, ...], int]:
    """Return stages and variants whose optimizer steps stay within a limit, as far as that goes.

    First the epochs shrink, in proportion and to no fewer than one for each stage, then the variants, to no fewer than
    one.

    Args:
        stages: stages with a length in epochs.
        samples: training samples.
        variants: how often an epoch draws each sample.
        batch_size: samples of an optimizer step.
        limit: optimizer steps of all stages together; None for no limit.
    """
    full = total_steps(stages, samples, variants, batch_size)
    if limit is None or full <= limit:
        return tuple(stages), variants
    shortest = [_lasting(stage, 1) for stage in stages]
    while variants > 1 and total_steps(shortest, samples, variants, batch_size) > limit:
        variants -= 1
    share = limit / total_steps(stages, samples, variants, batch_size)
    limited = [_lasting(stage, max(1, int((stage.epochs or 1) * share))) for stage in stages]
    while total_steps(limited, samples, variants, batch_size) > limit and limited != shortest:
        longest = max(range(len(limited)), key=lambda i: limited[i].epochs or 1)
        limited[longest] = _lasting(limited[longest], (limited[longest].epochs or 2) - 1)
    return tuple(limited), variants


def _lasting(stage: Stage, epochs: int) -> Stage:
    return stage.model_copy(update={"epochs": epochs, "steps": None})

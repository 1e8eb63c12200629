"""2001 to 10000 samples: a curriculum from easy samples to all of them, at falling rates, experts at its end."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field, PositiveFloat, PositiveInt
from trainkit import Plan, Selection, Setting, Situation, Stage
from trainkit.budget import Budget, Short, batch_size_of, optimizer_of, usual_rate, within_cpu_steps
from trainkit.techniques import Want, left_out, own_strength, settings_for, usable

Share = Annotated[float, Field(gt=0, le=1)]
Named = Literal["experts", "data-dropout", "modality-weighting", "multi-scale", "dropout"]
STAGE_NAMES = ("easy", "medium", "all")
BATCH_SIZE = 16
NOT_IN_SHORT_RUNS = {
    "multi-scale": "a short run gains more from the steps that it would cost",
    "modality-weighting": "in a short run the task's own loss learns as fast",
    "experts": "a short run has no steps for a second stage of its own",
    "dropout": "a short run sees each sample too seldom to overfit; it stays at the task's own",
}
SHARE_OF_EXPERTS = 0.4
SAVING = 0.2
DROPOUT_FACTOR, MOST_DROPOUT = 3, 0.5
OF_TASK: tuple[str, ...] = tuple(name for name in get_args(Named) if name != "data-dropout")


def curriculum(epochs: tuple[int, ...], shares: tuple[float, ...], lr_factors: tuple[float, ...]) -> tuple[Stage, ...]:
    """Return one stage for each length, share of easiest samples and learning-rate factor, each with its own cosine."""
    return tuple(
        Stage(name=name, epochs=length, selection=Selection(easiest=share), lr_factor=factor, restart_schedule=True)
        for name, length, share, factor in zip(STAGE_NAMES, epochs, shares, lr_factors, strict=True)
    )


def with_experts(stages: tuple[Stage, ...], trainable: tuple[str, ...]) -> tuple[Stage, ...]:
    """Return stages whose last gives two fifths of all epochs, or all but one of its own, to experts."""
    last = stages[-1]
    whole = last.epochs or 1
    length = min(whole - 1, round(SHARE_OF_EXPERTS * sum(stage.epochs or 0 for stage in stages)))
    if length < 1:
        return stages
    base = last.model_copy(update={"epochs": whole - length})
    return (*stages[:-1], base, last.model_copy(update={"name": "experts", "epochs": length, "trainable": trainable}))


def in_one_schedule(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Return stages that share one schedule at one rate: what few steps have no time to restart and divide."""
    return tuple(stage.model_copy(update={"lr_factor": 1.0, "restart_schedule": False}) for stage in stages)


def wanted(situation: Situation, budget: Budget, without: Sequence[str] = ()) -> list[Want]:
    """Return the techniques that phase 2 wants of a task, those of `without` left out."""
    wants = []
    if not budget.is_short:
        wants.append(Want("multi-scale", "what is seen at several resolutions should be judged alike"))
        wants.append(Want("modality-weighting", "the last stage balances what is seen and what is structure"))
        if any(stage.name == "experts" for stage in budget.stages):
            wants.append(Want("experts", "after the base model, each expert learns its own share of the noise"))
        if (dropout := own_strength(situation, "dropout")) is not None:
            strength = round(min(MOST_DROPOUT, DROPOUT_FACTOR * dropout), 3)
            wants.append(Want("dropout", f"{DROPOUT_FACTOR} times the task's own {dropout:g}", strength))
    return [want for want in wants if want.name not in without]


def phase2_plan(
    situation: Situation,
    epochs: tuple[int, int, int] = (20, 30, 50),
    shares: tuple[float, float, float] = (0.33, 0.67, 1.0),
    lr_factors: tuple[float, float, float] = (1.0, 0.5, 0.1),
    batch_size: int | None = None,
    variants: int = 10,
    lr: float | None = None,
    weight_decay: float = 1e-3,
    patience: int = 12,
    cpu_steps: int | None = 600,
    without: Sequence[str] = (),
) -> Plan:
    """Return the plan of phase 2 for a situation; the arguments are those of `Phase2`."""
    samples, batch = situation.train_samples, batch_size_of(situation, batch_size, BATCH_SIZE)
    plain = curriculum(epochs, shares if situation.has_difficulty else (1.0, 1.0, 1.0), lr_factors)
    recipe = plain
    if (experts := usable(situation, "experts")) and "experts" not in without:
        recipe = with_experts(plain, experts.trainable)
    short = Short(in_one_schedule(plain), batch_size or max(1, batch // 2))
    budget = within_cpu_steps(situation, recipe, variants, batch, cpu_steps, short)
    batch_reason = "enough samples for steadier gradients than phase 1 has"
    clip_reason = "a new stage begins with a jump of the learning rate"
    lr_reason = "the rate of the first stage, which later stages start from"
    if budget.is_short:
        batch, batch_reason = short.batch_size, "a short run needs many steps more than steady ones"
        clip_reason, lr_reason = "gradients of small batches vary much", "a usual rate, one for all stages"
    drawn = budget.variants
    seen = "as it is, once an epoch" if drawn == 1 else f"in {drawn} variants an epoch"
    callbacks = ["tensorboard", "early-stopping"]
    settings = {
        "loop.batch_size": Setting(value=batch, reason=batch_reason),
        "loop.variants": Setting(value=drawn, reason=f"each of {samples:,} samples is seen {seen}"),
        "loop.clip": Setting(value=1.0, reason=clip_reason),
        "optimizer.use": optimizer_of(situation),
        "optimizer.lr": usual_rate(situation, lr, lr_reason),
        "optimizer.weight_decay": Setting(value=weight_decay, reason="more than phase 1 has, which augments more"),
        **_schedule(budget),
        "callback.early-stopping.scope": Setting(value="stage", reason="a stage that stagnates gives way to the next"),
        "callback.early-stopping.adaptive": Setting(value=True, reason="a stage that still improves may go on longer"),
        "callback.early-stopping.patience": Setting(value=patience, reason="stages are short"),
        "callback.early-stopping.min_delta": Setting(value=1e-3, reason="smaller gains are noise"),
    }
    if "data-dropout" not in without:
        callbacks.append("data-dropout")
        saved = f"later epochs need not see every sample: {SAVING:.0%} fewer back-propagated over the run"
        settings["callback.data-dropout.target_saving"] = Setting(value=SAVING, reason=saved)
    settings["callback"] = Setting(value=callbacks, reason="curves, stages that end in time, epochs that grow shorter")
    settings |= settings_for(situation, wanted(situation, budget, without)) | budget.settings()
    return Plan(
        strategy="phase2",
        stages=budget.stages,
        settings=settings,
        notes=_notes(situation, budget, variants, without),
    )


def _schedule(budget: Budget) -> dict[str, Setting]:
    if budget.is_short:
        return {
            "scheduler.use": Setting(
                value="cosine", reason="one over all stages: a short run has no steps for restarts"
            ),
            "scheduler.warmup": Setting(value=0.1, reason="the first tenth of the steps lets the moments settle"),
            "scheduler.floor": Setting(value=0.01, reason="the last steps still move a little"),
        }
    return {
        "scheduler.use": Setting(value="cosine", reason="within each stage from its rate down to a tenth"),
        "scheduler.warmup": Setting(value=0.05, reason="a short rise at the start of each stage"),
        "scheduler.floor": Setting(value=0.1, reason="a stage ends where the next one can take over"),
    }


def _notes(situation: Situation, budget: Budget, variants: int, without: Sequence[str]) -> tuple[str, ...]:
    notes = []
    if not situation.has_difficulty:
        notes.append("left out: curriculum: the data has no difficulty, so every stage takes all samples")
    notes += [budget.note] if budget.note else []
    if not situation.has_augmenter and variants > 1:
        notes.append(f"left out: {variants} variants: nothing augments, and equal samples only make an epoch longer")
    notes += left_out(situation, [name for name in OF_TASK if name not in without])
    for name, why in NOT_IN_SHORT_RUNS.items():
        if budget.is_short and usable(situation, name) and name not in without:
            notes.append(f"left out: {name}: {why}")
    return tuple(notes)


class Phase2:
    """Train in three stages: the easy third of the samples, two thirds, then all, at falling learning rates.

    Each stage has its own cosine and may end early. Where the data has no difficulty, all stages take all samples. A
    task with experts gives them two fifths of all epochs, at the end. Data dropout leaves a fifth of the samples out.
    A run that is shortened has one cosine over all stages and half the batch, and leaves out what costs steps; the plan
    notes it.

    Args:
        epochs: length of each stage.
        shares: share of the easiest samples in each stage.
        lr_factors: factor on the learning rate in each stage.
        batch_size: samples of a batch; 16 for a task that usually takes 16, in proportion for others, and half of it in
            a run that cpu_steps shortens.
        variants: how often an epoch draws each sample; all but the first are augmented. Once where nothing augments.
        lr: peak learning rate of the first stage; if not set the one that the task proposes, or else 1e-3.
        weight_decay: decay of AdamW.
        patience: evaluations without improvement that end a stage.
        cpu_steps: most optimizer steps on a machine without an accelerator: epochs shrink first, in proportion, then
            variants; none for no limit.
        without: techniques to leave out, by name.

    Source: phase preset of the layout domain [impl]; shares by rank of difficulty instead of by element count, one
    patience for all stages, experts inside the third stage, and the limit on CPU steps [reading].
    """

    samples: tuple[int, int | None] | None = (2001, 10000)

    def __init__(
        self,
        epochs: tuple[PositiveInt, PositiveInt, PositiveInt] = (20, 30, 50),
        shares: tuple[Share, Share, Share] = (0.33, 0.67, 1.0),
        lr_factors: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 0.5, 0.1),
        batch_size: PositiveInt | None = None,
        variants: PositiveInt = 10,
        lr: PositiveFloat | None = None,
        weight_decay: PositiveFloat = 1e-3,
        patience: PositiveInt = 12,
        cpu_steps: PositiveInt | None = 600,
        without: tuple[Named, ...] = (),
    ) -> None:
        self._plan = functools.partial(
            phase2_plan,
            epochs=epochs,
            shares=shares,
            lr_factors=lr_factors,
            batch_size=batch_size,
            variants=variants,
            lr=lr,
            weight_decay=weight_decay,
            patience=patience,
            cpu_steps=cpu_steps,
            without=without,
        )

    def plan(self, situation: Situation) -> Plan:
        """Return the plan for a situation."""
        return self._plan(situation)

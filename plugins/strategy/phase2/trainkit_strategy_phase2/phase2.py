"""2001 to 10000 samples: a curriculum from easy samples to all of them, at falling learning rates."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt
from trainkit import Plan, Selection, Setting, Situation, Stage
from trainkit.budget import within_cpu_steps

Share = Annotated[float, Field(gt=0, le=1)]
STAGE_NAMES = ("easy", "medium", "all")
EVALUATIONS_OF_SHORT_RUN = 10


def curriculum(epochs: tuple[int, ...], shares: tuple[float, ...], lr_factors: tuple[float, ...]) -> tuple[Stage, ...]:
    """Return one stage for each length, share of easiest samples and learning-rate factor, each with its own cosine."""
    return tuple(
        Stage(name=name, epochs=length, selection=Selection(easiest=share), lr_factor=factor, restart_schedule=True)
        for name, length, share, factor in zip(STAGE_NAMES, epochs, shares, lr_factors, strict=True)
    )


def phase2_plan(
    situation: Situation,
    epochs: tuple[int, int, int] = (20, 30, 50),
    shares: tuple[float, float, float] = (0.33, 0.67, 1.0),
    lr_factors: tuple[float, float, float] = (1.0, 0.5, 0.1),
    batch_size: int = 16,
    variants: int = 10,
    lr: float = 1e-3,
    weight_decay: float = 1e-3,
    patience: int = 12,
    cpu_steps: int | None = 600,
) -> Plan:
    """Return the plan of phase 2 for a situation; the arguments are those of `Phase2`."""
    samples = situation.train_samples
    recipe = curriculum(epochs, shares if situation.has_difficulty else (1.0, 1.0, 1.0), lr_factors)
    budget = within_cpu_steps(situation, recipe, variants, batch_size, cpu_steps)
    drawn = budget.variants
    seen = "as it is, once an epoch" if drawn == 1 else f"in {drawn} variants an epoch"
    settings = {
        "loop.batch_size": Setting(value=batch_size, reason="enough samples for steadier gradients than phase 1 has"),
        "loop.variants": Setting(value=drawn, reason=f"each of {samples} samples is seen {seen}"),
        "loop.clip": Setting(value=1.0, reason="a new stage begins with a jump of the learning rate"),
        "optimizer.use": Setting(value="adamw", reason="the usual first choice"),
        "optimizer.lr": Setting(value=lr, reason="the rate of the first stage; later stages take a share of it"),
        "optimizer.weight_decay": Setting(value=weight_decay, reason="more samples than phase 1, less augmentation"),
        "scheduler.use": Setting(value="cosine", reason="within each stage from its rate down to a tenth"),
        "scheduler.warmup": Setting(value=0.05, reason="a short rise at the start of each stage"),
        "scheduler.floor": Setting(value=0.1, reason="a stage ends where the next one can take over"),
        "callback": Setting(value=["tensorboard", "early-stopping"], reason="curves, and an end when learning ends"),
        "callback.early-stopping.scope": Setting(value="stage", reason="a stage that stagnates gives way to the next"),
        "callback.early-stopping.patience": Setting(value=patience, reason="stages are short"),
        "callback.early-stopping.min_delta": Setting(value=1e-3, reason="smaller gains are noise"),
    }
    notes: list[str] = []
    if not situation.has_difficulty:
        notes.append("the data has no difficulty, so every stage takes all samples")
    if budget.note:
        every = max(1, budget.steps // EVALUATIONS_OF_SHORT_RUN)
        reason = f"a short run: about {EVALUATIONS_OF_SHORT_RUN} more evaluations find the best checkpoint better"
        settings["evaluate.every_steps"] = Setting(value=every, reason=reason)
        notes.append(budget.note)
    return Plan(strategy="phase2", stages=budget.stages, settings=settings, notes=tuple(notes))


class Phase2:
    """Train in three stages: the easy third of the samples, two thirds, then all, at falling learning rates.

    Each stage has its own cosine and may end early. Where the data has no difficulty, all stages take all samples.

    Args:
        epochs: length of each stage.
        shares: share of the easiest samples in each stage.
        lr_factors: factor on the learning rate in each stage.
        batch_size: samples of a batch.
        variants: how often an epoch draws each sample; all but the first are augmented.
        lr: peak learning rate of the first stage.
        weight_decay: decay of AdamW.
        patience: evaluations without improvement that end a stage.
        cpu_steps: most optimizer steps on a machine without an accelerator: epochs shrink first, in proportion, then
            variants; none for no limit.

    Source: phase preset of the layout domain [impl]; shares by rank of difficulty instead of by element count, one
    patience for all stages, and the limit on CPU steps [reading].
    """

    samples: tuple[int, int | None] | None = (2001, 10000)

    def __init__(
        self,
        epochs: tuple[PositiveInt, PositiveInt, PositiveInt] = (20, 30, 50),
        shares: tuple[Share, Share, Share] = (0.33, 0.67, 1.0),
        lr_factors: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 0.5, 0.1),
        batch_size: PositiveInt = 16,
        variants: PositiveInt = 10,
        lr: PositiveFloat = 1e-3,
        weight_decay: PositiveFloat = 1e-3,
        patience: PositiveInt = 12,
        cpu_steps: PositiveInt | None = 600,
    ) -> None:
        self.epochs = epochs
        self.shares = shares
        self.lr_factors = lr_factors
        self.batch_size = batch_size
        self.variants = variants
        self.lr = lr
        self.weight_decay = weight_decay
        self.patience = patience
        self.cpu_steps = cpu_steps

    def plan(self, situation: Situation) -> Plan:
        """Return the plan for a situation."""
        return phase2_plan(
            situation,
            self.epochs,
            self.shares,
            self.lr_factors,
            self.batch_size,
            self.variants,
            self.lr,
            self.weight_decay,
            self.patience,
            self.cpu_steps,
        )

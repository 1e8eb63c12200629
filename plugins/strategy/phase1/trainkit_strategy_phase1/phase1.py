"""Up to 2000 samples: see each one in many variants, in small batches, regularised, with patience."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import PositiveFloat, PositiveInt
from trainkit import Plan, Setting, Situation, Stage
from trainkit.budget import Budget, batch_size_of, optimizer_of, rate_of, within_cpu_steps
from trainkit.techniques import Want, left_out, own_strength, settings_for, usable

BATCH_SIZE, LR = 8, 1e-4
FOLDS = 5
NOT_IN_SHORT_RUNS = {
    "few-shot": "a short run gains more from the steps that it would cost",
    "variance-aware": "in a short run the task's own loss learns faster",
    "dropout": "a short run sees each sample too seldom to overfit; it stays at the task's own",
}
DROPOUT_FACTOR, MOST_DROPOUT = 4, 0.5
Named = Literal["few-shot", "unfreezing", "variance-aware", "dropout"]
TECHNIQUES: tuple[str, ...] = get_args(Named)


def wanted(situation: Situation, budget: Budget, without: Sequence[str] = ()) -> list[Want]:
    """Return the techniques of phase 1, those of `without` left out."""
    wants = [Want("unfreezing", "what is pretrained changes last and least")]
    if not budget.is_short:
        wants.append(Want("variance-aware", "terms that vary more count less"))
        wants.append(Want("few-shot", "a sample may look at other training samples of its kind"))
        if (dropout := own_strength(situation, "dropout")) is not None:
            strength = round(min(MOST_DROPOUT, DROPOUT_FACTOR * dropout), 3)
            wants.append(Want("dropout", f"few samples: {DROPOUT_FACTOR} times the task's own {dropout:g}", strength))
    return [want for want in wants if want.name not in without]


def phase1_plan(
    situation: Situation,
    epochs: int = 100,
    batch_size: int | None = None,
    variants: int = 50,
    lr: float | None = None,
    weight_decay: float = 1e-4,
    patience: int = 15,
    cpu_steps: int | None = 600,
    without: Sequence[str] = (),
) -> Plan:
    """Return the plan of phase 1 for a situation; the arguments are those of `Phase1`."""
    samples, batch = situation.train_samples, batch_size_of(situation, batch_size, BATCH_SIZE)
    recipe = (Stage(name="train", epochs=epochs),)
    budget = within_cpu_steps(situation, recipe, variants, batch, cpu_steps)
    seen = "as it is, once an epoch" if budget.variants == 1 else f"{budget.variants} times an epoch, there are few"
    callbacks = ["tensorboard", "early-stopping"]
    if usable(situation, "unfreezing") and "unfreezing" not in without:
        callbacks.append("unfreezing")
    settings = {
        "loop.batch_size": Setting(value=batch, reason="small batches give many updates from few samples"),
        "loop.variants": Setting(value=budget.variants, reason=f"each of {samples:,} samples is seen {seen}"),
        "loop.clip": Setting(value=1.0, reason="gradients of small batches vary much"),
        "optimizer.use": optimizer_of(situation),
        "optimizer.lr": rate_of(
            situation, lr, LR, budget, "a careful rate: small batches and few samples overfit quickly"
        ),
        "optimizer.weight_decay": Setting(value=weight_decay, reason=_why_little_decay(situation, budget)),
        "scheduler.use": Setting(value="cosine", reason="needs no tuning when the length is known"),
        "scheduler.warmup": Setting(value=0.1, reason="the first tenth of the steps lets the moments settle"),
        "scheduler.start": Setting(value=0.1, reason="the warm-up starts at a tenth of the rate, so no step is wasted"),
        "scheduler.floor": Setting(value=0.01, reason="the last steps still move a little"),
        "callback": Setting(value=callbacks, reason="curves, and an end when learning ends"),
        "callback.early-stopping.patience": Setting(value=patience, reason="few validation samples make noisy values"),
        "callback.early-stopping.min_delta": Setting(value=1e-3, reason="smaller gains are noise on few samples"),
    }
    settings |= settings_for(situation, wanted(situation, budget, without)) | budget.settings()
    return Plan(
        strategy="phase1",
        stages=budget.stages,
        settings=settings,
        notes=_notes(situation, budget, variants, without),
    )


def _why_little_decay(situation: Situation, budget: Budget) -> str:
    if situation.has_augmenter and budget.augments:
        return "augmentation regularises already"
    return "a short run hardly overfits" if budget.is_short else "dropout and early stopping regularise, too"


def _notes(situation: Situation, budget: Budget, variants: int, without: Sequence[str]) -> tuple[str, ...]:
    notes = [budget.note] if budget.note else []
    if not situation.has_augmenter and variants > 1:
        notes.append(f"left out: {variants} variants: nothing augments, and equal samples only make an epoch longer")
    notes += left_out(situation, [name for name in TECHNIQUES if name not in without])
    for name, why in NOT_IN_SHORT_RUNS.items():
        if budget.is_short and usable(situation, name) and name not in without:
            notes.append(f"left out: {name}: {why}")
    if situation.folds is None:
        notes.append(f"one split of so few samples says little: --folds {FOLDS} tells how much results vary")
    return tuple(notes)


class Phase1:
    """Train on few samples: many variants of each, small batches, high regularisation, a low rate, early stopping.

    The techniques few-shot, unfreezing, variance-aware and dropout are taken where the task can use them, all but
    unfreezing only in runs that are not shortened; the plan notes what is left out, and why.

    Args:
        epochs: longest training, in passes over all variants.
        batch_size: samples of a batch; 8 for a task that usually takes 16, in proportion for others.
        variants: how often an epoch draws each sample; all but the first are augmented. Once where nothing augments.
        lr: peak learning rate; 1e-4 if not set, and 1e-3 where there are fewer than 5,000 steps.
        weight_decay: decay of AdamW.
        patience: evaluations without improvement that end the training.
        cpu_steps: most optimizer steps on a machine without an accelerator: epochs shrink first, then variants; none
            for no limit.
        without: techniques to leave out, by name.

    Source: phase preset of the layout domain [impl]; its scale for other tasks, the limit on CPU steps, and the
    learning rate and dropout of short runs [reading].
    """

    samples: tuple[int, int | None] | None = (0, 2000)

    def __init__(
        self,
        epochs: PositiveInt = 100,
        batch_size: PositiveInt | None = None,
        variants: PositiveInt = 50,
        lr: PositiveFloat | None = None,
        weight_decay: PositiveFloat = 1e-4,
        patience: PositiveInt = 15,
        cpu_steps: PositiveInt | None = 600,
        without: tuple[Named, ...] = (),
    ) -> None:
        self._plan = functools.partial(
            phase1_plan,
            epochs=epochs,
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

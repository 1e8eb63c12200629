"""10001 to 100000 samples: large batches in half precision, and regularisation of many kinds, each of it mild."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import PositiveFloat, PositiveInt
from trainkit import Plan, Setting, Situation, Stage
from trainkit.budget import (
    Budget,
    batch_size_of,
    devices_settings,
    optimizer_of,
    precision_notes,
    precision_settings,
    rate_of,
    within_cpu_steps,
)
from trainkit.techniques import Want, left_out, own_strength, settings_for, usable

Named = Literal["guidance", "label-smoothing", "stochastic-depth", "feature-noise", "dropout"]
TECHNIQUES: tuple[str, ...] = get_args(Named)
BATCH_SIZE, LR = 128, 1e-4
MOST_WARMUP_STEPS, WARMUP = 10_000, 0.05
GUIDANCE, SMOOTHING, DEPTH, NOISE = 7.5, 0.1, 0.1, 0.01
DROPOUT_FACTOR, MOST_DROPOUT = 2, 0.5


def wanted(situation: Situation, budget: Budget, without: Sequence[str] = ()) -> list[Want]:
    """Return the techniques of phase 3, those of `without` left out."""
    wants = [
        Want("guidance", "trained without its condition now and then, so that guidance can strengthen it", GUIDANCE),
        Want("label-smoothing", "many labels, some of them wrong", SMOOTHING),
    ]
    if not budget.is_short:
        wants += [
            Want("stochastic-depth", "layers are left out at random, the last ones most", DEPTH),
            Want("feature-noise", "inputs that are not quite the same twice", NOISE),
        ]
        if (dropout := own_strength(situation, "dropout")) is not None:
            strength = round(min(MOST_DROPOUT, DROPOUT_FACTOR * dropout), 3)
            wants.append(Want("dropout", f"{DROPOUT_FACTOR} times the task's own {dropout:g}", strength))
    return [want for want in wants if want.name not in without]


def phase3_plan(
    situation: Situation,
    epochs: int = 50,
    batch_size: int | None = None,
    lr: float | None = None,
    weight_decay: float = 1e-2,
    patience: int = 8,
    cpu_steps: int | None = 600,
    without: Sequence[str] = (),
) -> Plan:
    """Return the plan of phase 3 for a situation; the arguments are those of `Phase3`."""
    batch = batch_size_of(situation, batch_size, BATCH_SIZE)
    budget = within_cpu_steps(situation, (Stage(name="train", epochs=epochs),), 1, batch, cpu_steps)
    # A whole number is of steps, a fraction of the schedule.
    warmup = MOST_WARMUP_STEPS if budget.steps * WARMUP > MOST_WARMUP_STEPS else WARMUP
    settings = {
        "loop.batch_size": Setting(value=batch, reason="enough samples for large batches, which a GPU is made for"),
        "loop.variants": Setting(value=1, reason="there are samples enough: each is augmented anew in each epoch"),
        "loop.clip": Setting(value=1.0, reason="guards against the rare large gradient"),
        "optimizer.use": optimizer_of(situation),
        "optimizer.lr": rate_of(situation, lr, LR, budget, "many steps: a careful rate reaches further"),
        "optimizer.weight_decay": Setting(value=weight_decay, reason="AdamW's usual decay"),
        "scheduler.use": Setting(value="cosine", reason="needs no tuning when the length is known"),
        "scheduler.warmup": Setting(value=warmup, reason="a twentieth of the steps, 10,000 at most"),
        "scheduler.floor": Setting(value=0.01, reason="the last steps still move a little"),
        "callback": Setting(value=["tensorboard", "early-stopping"], reason="curves, and an end when learning ends"),
        "callback.early-stopping.patience": Setting(value=patience, reason="many validation samples: steadier values"),
        "callback.early-stopping.min_delta": Setting(value=5e-4, reason="smaller gains are noise"),
    }
    settings |= precision_settings(situation) | devices_settings(situation, batch)
    settings |= settings_for(situation, wanted(situation, budget, without)) | budget.settings()
    return Plan(strategy="phase3", stages=budget.stages, settings=settings, notes=_notes(situation, budget, without))


def _notes(situation: Situation, budget: Budget, without: Sequence[str]) -> tuple[str, ...]:
    notes = [*([budget.note] if budget.note else []), *precision_notes(situation)]
    if situation.devices == 1:
        notes.append("left out: data parallelism: there is one device")
    notes += left_out(situation, [name for name in TECHNIQUES if name not in without])
    regularisers = ("stochastic-depth", "feature-noise", "dropout")
    kept = [name for name in regularisers if usable(situation, name) and name not in without]
    if budget.is_short and kept:
        notes.append(f"left out: {', '.join(kept)}: a short run sees each sample too seldom to overfit")
    return tuple(notes)


class Phase3:
    """Train on many samples: large batches, half precision where the device has it, mild regularisation of many kinds.

    Several devices share each batch where there are several.

    The techniques guidance, label-smoothing, stochastic-depth, feature-noise and dropout are taken where the task can
    use them; the plan notes what is left out, and why.

    Args:
        epochs: longest training.
        batch_size: samples of a batch; 128 for a task that usually takes 16, in proportion for others.
        lr: peak learning rate; 1e-4 if not set, and 1e-3 where there are fewer than 5,000 steps.
        weight_decay: decay of AdamW.
        patience: evaluations without improvement that end the training.
        cpu_steps: most optimizer steps on a machine without an accelerator, no fewer than one epoch; none for no limit.
        without: techniques to leave out, by name.

    Source: phase preset of the layout domain [impl]; its scale for other tasks, the limit on CPU steps, and the
    learning rate and regularisation of short runs [reading].
    """

    samples: tuple[int, int | None] | None = (10_001, 100_000)

    def __init__(
        self,
        epochs: PositiveInt = 50,
        batch_size: PositiveInt | None = None,
        lr: PositiveFloat | None = None,
        weight_decay: PositiveFloat = 1e-2,
        patience: PositiveInt = 8,
        cpu_steps: PositiveInt | None = 600,
        without: tuple[Named, ...] = (),
    ) -> None:
        self._plan = functools.partial(
            phase3_plan,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            patience=patience,
            cpu_steps=cpu_steps,
            without=without,
        )

    def plan(self, situation: Situation) -> Plan:
        """Return the plan for a situation."""
        return self._plan(situation)

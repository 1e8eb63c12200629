"""More than 100000 samples: very large batches by accumulation, averaged weights, learned weights of loss terms."""

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
from trainkit.techniques import Want, left_out, settings_for

Named = Literal["guidance", "dynamic-weighting", "ema"]
OF_TASK: tuple[str, ...] = tuple(name for name in get_args(Named) if name != "ema")
BATCH_SIZE, ACCUMULATE, LR, BATCH_OF_LR = 256, 4, 1e-4, 256
MOST_WARMUP_STEPS, WARMUP = 10_000, 0.05
GUIDANCE, DECAY = 7.5, 0.9999


def wanted(without: Sequence[str] = ()) -> list[Want]:
    """Return the techniques that phase 4 wants of a task, those of `without` left out."""
    wants = [
        Want("guidance", "trained without its condition now and then, so that guidance can strengthen it", GUIDANCE),
        Want("dynamic-weighting", "terms that are hard to predict are trusted less, by uncertainties that are learned"),
    ]
    return [want for want in wants if want.name not in without]


def phase4_plan(
    situation: Situation,
    epochs: int = 30,
    batch_size: int | None = None,
    accumulate: int = ACCUMULATE,
    lr: float | None = None,
    weight_decay: float = 1e-2,
    patience: int = 10,
    cpu_steps: int | None = 600,
    without: Sequence[str] = (),
) -> Plan:
    """Return the plan of phase 4 for a situation; the arguments are those of `Phase4`."""
    batch = batch_size_of(situation, batch_size, BATCH_SIZE)
    budget = within_cpu_steps(situation, (Stage(name="train", epochs=epochs),), 1, batch * accumulate, cpu_steps)
    # A whole number is of steps, a fraction of the schedule.
    warmup = MOST_WARMUP_STEPS if budget.steps * WARMUP > MOST_WARMUP_STEPS else WARMUP
    # The preset's batch of 256 stands for whatever batch the task takes in its place.
    rate = LR * batch * accumulate / batch_size_of(situation, None, BATCH_OF_LR)
    callbacks = ["tensorboard", "early-stopping", *(["ema"] if "ema" not in without else [])]
    at_once = devices_at_once(situation.devices, accumulate)
    filled = f"as many samples as {'a GPU computes' if at_once == 1 else f'{at_once} devices compute'} at once"
    settings = {
        "loop.batch_size": Setting(value=batch * at_once, reason=filled),
        "loop.accumulate": Setting(value=accumulate // at_once, reason=f"an effective batch of {batch * accumulate:,}"),
        "loop.variants": Setting(value=1, reason="there are samples enough: each is augmented anew in each epoch"),
        "loop.clip": Setting(value=1.0, reason="guards against the rare large gradient"),
        "optimizer.use": optimizer_of(situation),
        "optimizer.lr": rate_of(situation, lr, rate, budget, "in proportion to the effective batch"),
        "optimizer.weight_decay": Setting(value=weight_decay, reason="AdamW's usual decay"),
        "scheduler.use": Setting(value="cosine", reason="needs no tuning when the length is known"),
        "scheduler.warmup": Setting(value=warmup, reason="a twentieth of the steps, 10,000 at most"),
        "scheduler.floor": Setting(value=0.001, reason="the last steps only settle"),
        "callback": Setting(
            value=callbacks, reason="curves, an end when learning ends, an average of the last weights"
        ),
        "callback.early-stopping.patience": Setting(value=patience, reason="an epoch is long, and learning slow"),
        "callback.early-stopping.min_delta": Setting(value=1e-4, reason="so many samples make small gains real"),
    }
    if "ema" not in without:
        settings["callback.ema.decay"] = Setting(value=DECAY, reason="about the last 10,000 steps, fewer at first")
    settings |= precision_settings(situation) | devices_settings(situation, batch * at_once)
    settings |= settings_for(situation, wanted(without)) | budget.settings()
    return Plan(strategy="phase4", stages=budget.stages, settings=settings, notes=_notes(situation, budget, without))


def devices_at_once(devices: int, accumulate: int) -> int:
    """Return for how many devices a batch is made: they take the place of micro-batches, of as many as go into them."""
    return max(number for number in range(1, min(devices, accumulate) + 1) if accumulate % number == 0)


def _notes(situation: Situation, budget: Budget, without: Sequence[str]) -> tuple[str, ...]:
    notes = [*([budget.note] if budget.note else []), *precision_notes(situation)]
    if situation.devices == 1:
        notes.append("left out: data parallelism: there is one device, accumulation makes up the batch")
    return (*notes, *left_out(situation, [name for name in OF_TASK if name not in without]))


class Phase4:
    """Train on very many samples: a large effective batch, averaged weights, learned weights of the loss's terms.

    The techniques guidance and dynamic-weighting are taken where the task can use them; the plan notes what is left
    out, and why. Uncertainties are the dynamic weights: a set of terms has one weighting.

    Args:
        epochs: longest training.
        batch_size: samples of a micro-batch; 256 for a task that usually takes 16, in proportion for others.
        accumulate: micro-batches of an optimizer step on one device; several devices compute as many of them at once.
        lr: peak learning rate; if not set, 1e-4 for each 256 samples of an optimizer step, and at least 1e-3 where
            there are fewer than 5,000 steps.
        weight_decay: decay of AdamW.
        patience: evaluations without improvement that end the training.
        cpu_steps: most optimizer steps on a machine without an accelerator, no fewer than one epoch; none for no limit.
        without: techniques to leave out, by name.

    Source: phase preset of the layout domain [impl]; its scale for other tasks, the limit on CPU steps and the learning
    rate of short runs [reading].
    """

    samples: tuple[int, int | None] | None = (100_001, None)

    def __init__(
        self,
        epochs: PositiveInt = 30,
        batch_size: PositiveInt | None = None,
        accumulate: PositiveInt = ACCUMULATE,
        lr: PositiveFloat | None = None,
        weight_decay: PositiveFloat = 1e-2,
        patience: PositiveInt = 10,
        cpu_steps: PositiveInt | None = 600,
        without: tuple[Named, ...] = (),
    ) -> None:
        self._plan = functools.partial(
            phase4_plan,
            epochs=epochs,
            batch_size=batch_size,
            accumulate=accumulate,
            lr=lr,
            weight_decay=weight_decay,
            patience=patience,
            cpu_steps=cpu_steps,
            without=without,
        )

    def plan(self, situation: Situation) -> Plan:
        """Return the plan for a situation."""
        return self._plan(situation)

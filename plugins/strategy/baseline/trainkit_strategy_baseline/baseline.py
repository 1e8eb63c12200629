"""The yardstick: one stage, modest settings, no tricks."""

from __future__ import annotations

import functools

from pydantic import PositiveFloat, PositiveInt
from trainkit import Plan, Setting, Situation, Stage
from trainkit.budget import optimizer_of, usual_rate, within_cpu_steps


def baseline_plan(
    situation: Situation,
    epochs: int = 20,
    batch_size: int = 16,
    lr: float | None = None,
    weight_decay: float = 1e-2,
    cpu_steps: int | None = 600,
) -> Plan:
    """Return the plan of the baseline for a situation; the arguments are those of `Baseline`."""
    recipe = (Stage(name="train", epochs=epochs),)
    budget = within_cpu_steps(situation, recipe, 1, batch_size, cpu_steps)
    settings = {
        "loop.batch_size": Setting(value=batch_size, reason="a modest batch that fits everywhere"),
        "loop.variants": Setting(value=1, reason="an epoch draws each sample once"),
        "augmenter": Setting(value=[], reason="the baseline does not augment"),
        "loop.clip": Setting(value=1.0, reason="guards against the rare large gradient"),
        "optimizer.use": optimizer_of(situation),
        "optimizer.lr": usual_rate(situation, lr, "a usual rate for small models, or the task's own"),
        "optimizer.weight_decay": Setting(value=weight_decay, reason="a usual decay"),
        "scheduler.use": Setting(value="cosine", reason="needs no tuning when the length is known"),
        "scheduler.warmup": Setting(value=0.1, reason="the first tenth of the steps lets the moments settle"),
        "scheduler.floor": Setting(value=0.01, reason="the last steps still move a little"),
        "callback": Setting(value=["tensorboard"], reason="curves to look at"),
    }
    notes = (budget.note,) if budget.note else ()
    return Plan(strategy="baseline", stages=budget.stages, settings=settings, notes=notes)


class Baseline:
    """Train in one stage with modest settings: what another strategy has to beat.

    It is chosen by name, or when no installed strategy declares a range that holds the number of samples.

    Args:
        epochs: length of the training.
        batch_size: samples of a batch.
        lr: peak learning rate; if not set the one that the task proposes, or else 1e-3.
        weight_decay: decay of the weights.
        cpu_steps: most optimizer steps on a machine without an accelerator, no fewer than one epoch; none for no limit.
    """

    samples: tuple[int, int | None] | None = None

    def __init__(
        self,
        epochs: PositiveInt = 20,
        batch_size: PositiveInt = 16,
        lr: PositiveFloat | None = None,
        weight_decay: PositiveFloat = 1e-2,
        cpu_steps: PositiveInt | None = 600,
    ) -> None:
        self._plan = functools.partial(
            baseline_plan,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            cpu_steps=cpu_steps,
        )

    def plan(self, situation: Situation) -> Plan:
        """Return the plan for a situation."""
        return self._plan(situation)

"""Up to 2000 samples: see each one in many variants, in small batches, with patience."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt
from trainkit import Plan, Setting, Situation, Stage
from trainkit.budget import within_cpu_steps

LR, LR_OF_SHORT_RUN = 1e-4, 1e-3
EVALUATIONS_OF_SHORT_RUN = 10


def phase1_plan(
    situation: Situation,
    epochs: int = 100,
    batch_size: int = 8,
    variants: int = 50,
    lr: float | None = None,
    weight_decay: float = 1e-4,
    patience: int = 15,
    cpu_steps: int | None = 600,
) -> Plan:
    """Return the plan of phase 1 for a situation; the arguments are those of `Phase1`."""
    samples = situation.train_samples
    recipe = (Stage(name="train", epochs=epochs),)
    budget = within_cpu_steps(situation, recipe, variants, batch_size, cpu_steps)
    drawn = budget.variants
    times = "once" if drawn == 1 else f"{drawn} times"
    settings = {
        "loop.batch_size": Setting(value=batch_size, reason="small batches give many updates from few samples"),
        "loop.variants": Setting(value=drawn, reason=f"{samples} samples are few: an epoch draws each {times}"),
        "loop.clip": Setting(value=1.0, reason="gradients of small batches vary much"),
        "optimizer.use": Setting(value="adamw", reason="the usual first choice"),
        "optimizer.lr": Setting(value=lr or LR, reason="a careful rate: small batches and few samples overfit quickly"),
        "optimizer.weight_decay": Setting(value=weight_decay, reason="augmentation regularises already"),
        "scheduler.use": Setting(value="cosine", reason="needs no tuning when the length is known"),
        "scheduler.warmup": Setting(value=0.1, reason="the first tenth of the steps lets the moments settle"),
        "scheduler.start": Setting(value=0.1, reason="the warm-up starts at a tenth of the rate, so no step is wasted"),
        "scheduler.floor": Setting(value=0.01, reason="the last steps still move a little"),
        "callback": Setting(value=["tensorboard", "early-stopping"], reason="curves, and an end when learning ends"),
        "callback.early-stopping.patience": Setting(value=patience, reason="few validation samples make noisy values"),
        "callback.early-stopping.min_delta": Setting(value=1e-3, reason="smaller gains are noise on few samples"),
    }
    notes = (budget.note,) if budget.note else ()
    if budget.note:
        settings |= _short_run(budget.steps, budget.full_steps, lr)
    return Plan(strategy="phase1", stages=budget.stages, settings=settings, notes=notes)


def _short_run(steps: int, full: int, lr: float | None) -> dict[str, Setting]:
    """Return what differs where `steps` of the `full` recipe are made."""
    evaluations = f"few epochs: about {EVALUATIONS_OF_SHORT_RUN} evaluations find the best checkpoint better"
    settings = {"evaluate.every_steps": Setting(value=max(1, steps // EVALUATIONS_OF_SHORT_RUN), reason=evaluations)}
    if lr is None:
        larger = f"{steps:,} steps instead of {full:,}: fewer steps have to be larger ones"
        settings["optimizer.lr"] = Setting(value=LR_OF_SHORT_RUN, reason=larger)
    return settings


class Phase1:
    """Train on few samples: many variants of each, small batches, a low rate with warm-up, early stopping.

    Args:
        epochs: longest training, in passes over all variants.
        batch_size: samples of a batch.
        variants: how often an epoch draws each sample; all but the first are augmented.
        lr: peak learning rate; 1e-4 if not set, and 1e-3 where cpu_steps shortens the training.
        weight_decay: decay of AdamW.
        patience: evaluations without improvement that end the training.
        cpu_steps: most optimizer steps on a machine without an accelerator: epochs shrink first, then variants; none
            for no limit.

    Source: phase preset of the layout domain [impl]; the limit on CPU steps, and its learning rate [reading].
    """

    samples: tuple[int, int | None] | None = (0, 2000)

    def __init__(
        self,
        epochs: PositiveInt = 100,
        batch_size: PositiveInt = 8,
        variants: PositiveInt = 50,
        lr: PositiveFloat | None = None,
        weight_decay: PositiveFloat = 1e-4,
        patience: PositiveInt = 15,
        cpu_steps: PositiveInt | None = 600,
    ) -> None:
        self.epochs = epochs
        self.batch_size = batch_size
        self.variants = variants
        self.lr = lr
        self.weight_decay = weight_decay
        self.patience = patience
        self.cpu_steps = cpu_steps

    def plan(self, situation: Situation) -> Plan:
        """Return the plan for a situation."""
        return phase1_plan(
            situation,
            self.epochs,
            self.batch_size,
            self.variants,
            self.lr,
            self.weight_decay,
            self.patience,
            self.cpu_steps,
        )

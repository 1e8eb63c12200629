"""A limit on the optimizer steps of a plan, for machines on which a step is dear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .plan import Situation, Stage, admitted, stage_length


@dataclass(frozen=True)
class Budget:
    """Hold what is left of a recipe on a machine.

    Args:
        stages: the stages, shortened where the machine has no accelerator.
        variants: how often an epoch draws each sample.
        steps: optimizer steps of these stages.
        full_steps: optimizer steps of the recipe.
        note: what was shortened and how to get it all; '' where nothing was.
    """

    stages: tuple[Stage, ...]
    variants: int
    steps: int
    full_steps: int
    note: str = ""


def within_cpu_steps(
    situation: Situation, recipe: tuple[Stage, ...], variants: int, batch_size: int, cpu_steps: int | None
) -> Budget:
    """Return a recipe's budget: all of it on an accelerator, about `cpu_steps` optimizer steps elsewhere."""
    samples = situation.train_samples
    limit = cpu_steps if situation.device == "cpu" else None
    stages, drawn = limit_steps(recipe, samples, variants, batch_size, limit)
    steps = total_steps(stages, samples, drawn, batch_size)
    full = total_steps(recipe, samples, variants, batch_size)
    if (stages, drawn) == (recipe, variants):
        return Budget(stages, drawn, steps, full)
    kept = f"{_epochs(stages)} of {_epochs(recipe)} epochs"
    if variants > 1:
        kept += f" and {drawn} of {variants} variants"
    note = (
        f"no accelerator: {kept}, to stay near {limit} optimizer steps. "
        f"The full recipe takes {full:,}: --set strategy.cpu_steps=none"
    )
    return Budget(stages, drawn, steps, full, note)


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

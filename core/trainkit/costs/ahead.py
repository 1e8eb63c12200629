"""What is left of a plan at a moment: steps by stage, evaluations, and the samples that they look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainkit.live import Run
    from trainkit.moment import Moment
    from trainkit.settings import EvaluateSettings
    from trainkit.stages import PlannedStage


@dataclass(frozen=True)
class Ahead:
    """Hold what is left.

    Args:
        steps: optimizer steps of each stage of the plan; not whole where those of another plan were scaled.
        evaluations: of the validation split.
        rounds: these, and the final table as one more.
        samples: what all of them look at.
    """

    steps: tuple[float, ...]
    evaluations: int
    rounds: int
    samples: int


def ahead_of(run: Run) -> Ahead:
    """Return what is left of a run."""
    lengths = {split: len(dataset) for split, dataset in run.splits.items()}
    return ahead(run.stages, run.moment, run.settings.evaluate, lengths)


def ahead(
    stages: Sequence[PlannedStage], moment: Moment, evaluate: EvaluateSettings, lengths: Mapping[str, int]
) -> Ahead:
    """Return what is left of a plan; a stage that ended early brings all later ones forward.

    Args:
        stages: of the plan.
        moment: where the run is.
        evaluate: when and on what is evaluated.
        lengths: samples by split.
    """
    steps = [0] * len(stages)
    evaluations = 0
    step, epoch = moment.step, moment.epoch
    for index in range(moment.stage, len(stages)):
        length = stages[index].length
        is_begun = index == moment.stage and moment.stage_started
        first, first_epoch = (moment.stage_step, moment.stage_epoch) if is_begun else (step, epoch)
        last = step if is_begun and moment.stage_ended else first + length.steps
        last_epoch = epoch if is_begun and moment.stage_ended else first_epoch + length.epochs
        steps[index] = max(0, last - step)
        if evaluate.every_steps:
            evaluations += max(0, last // evaluate.every_steps - step // evaluate.every_steps)
        for number in range(epoch + 1, last_epoch + 1):
            is_last = index == len(stages) - 1 and number == last_epoch
            if is_last or (evaluate.every_epochs and number % evaluate.every_epochs == 0):
                end = last if number == last_epoch else first + (number - first_epoch) * length.steps_per_epoch
                # An epoch that ends where an evaluation by steps falls due is evaluated once.
                evaluations += not (evaluate.every_steps and end % evaluate.every_steps == 0 and end > step)
        step, epoch = max(step, last), max(epoch, last_epoch)
    evaluations = evaluations if "val" in lengths else 0
    samples = evaluations * lengths.get("val", 0) + _final_samples(evaluate, lengths)
    return Ahead(tuple(steps), evaluations, evaluations + evaluate.final, samples)


def _final_samples(evaluate: EvaluateSettings, lengths: Mapping[str, int]) -> int:
    if not evaluate.final:
        return 0
    return sum(min(n, evaluate.train_samples) if split == "train" else n for split, n in lengths.items())


def epoch_ends(stages: Sequence[PlannedStage]) -> list[int]:
    """Return the step at which each epoch of a plan ends; in a stage whose epochs differ they are spread evenly."""
    ends: list[int] = []
    for planned in stages:
        length = planned.length
        even = length.steps_per_epoch * length.epochs != length.steps and length.epochs > 1
        for number in range(1, length.epochs + 1):
            done = math.ceil(length.steps * number / length.epochs) if even else length.steps_per_epoch * number
            ends.append(planned.first_step + min(length.steps, done))
    return ends

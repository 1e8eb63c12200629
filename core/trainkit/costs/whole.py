"""What is left of something larger that a run is a part of, as its cross-validation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from trainkit.moment import Moment

from .ahead import Ahead, ahead, ahead_of

if TYPE_CHECKING:
    from trainkit.live import Run
    from trainkit.partof import PartOf


def spent_on_whole(run: Run) -> float:
    """Return the seconds that a run took so far, with all that came before it."""
    if run.part_of is None:
        return run.forecast.elapsed()
    return run.part_of.seconds_before + _spent(run, run.part_of)


def steps_left(run: Run, left: Ahead) -> float:
    """Return the optimizer steps that are left of a run and of all that comes after it."""
    part = run.part_of
    return sum(left.steps) + (sum(part.planned[part.number + 1 :]) if part is not None else 0)


def left_of_whole(run: Run, left: float) -> float:
    """Return the seconds that a run and all that comes after it will take.

    Args:
        run: which has measured its first steps.
        left: seconds that it will itself take.
    """
    part = run.part_of
    if part is None:
        return left
    spent = _spent(run, part)
    started = spent - run.forecast.elapsed()
    sample, extra = run.forecast.of_evaluations(ahead_of(run))
    own = {split: len(dataset) for split, dataset in run.splits.items()}
    expected = []
    for number, steps in enumerate(part.planned):
        lengths = part.samples[number] if part.samples else own
        again = lengths.get("val", 0) * sample if part.answers_again else 0.0
        if number == part.number:
            expected.append(spent + left + again)
        else:
            measured = run.forecast.seconds(_whole_of(run, lengths, steps), sample, extra)
            expected.append(started + measured + again)
    return part.remaining(spent, left, expected)


def _spent(run: Run, part: PartOf) -> float:
    forecast = run.forecast
    return forecast.elapsed() if part.began is None else forecast.before + time.perf_counter() - part.began


def _whole_of(run: Run, lengths: Mapping[str, int], steps: int) -> Ahead:
    """Return all that a part with samples and steps of its own has to do under the plan of a run."""
    whole = ahead(run.stages, Moment(), run.settings.evaluate, lengths)
    return replace(whole, steps=tuple(count * steps / max(1, run.total_steps) for count in whole.steps))

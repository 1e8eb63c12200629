"""The forecast of a run's end: what steps and evaluations took so far, times what is left of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from .ahead import Ahead

FEWEST_STEPS = 8
KNOWN_STEPS = 4
LEAST_WEIGHT = 0.02
RECENT = 3
NOTHING_LEFT = Ahead((), 0, 0, 0)


@dataclass(frozen=True)
class Made:
    """Hold the first forecast: the step it was made at, the steps of the plan, and the seconds of all of it."""

    step: int
    steps: int
    seconds: float


@dataclass
class _Round:
    """Hold an evaluation: its seconds, its samples, and the seconds of what belongs to it besides."""

    seconds: float
    samples: int
    extra: float = 0.0


class Forecast:
    """Forecast the seconds that are left of a run, from the steps and evaluations that it has done.

    A step's seconds are the mean of those measured, and a moving average once there are many; the first step is left
    out: it compiles, allocates and starts workers. What later stages take more or less than this one, and what an
    evaluation takes before there was one, comes from `expect`.

    Source: estimate of time by a moving average. Deviations: the plain mean of the first steps, as a moving average
    begun at the second step is a poor one for long; evaluations by their samples.
    """

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.before = 0.0
        self.first: Made | None = None
        self.is_estimated = False
        self.evaluations = 0
        self.relative: Sequence[float] = ()
        self._expected_sample = self._expected_extra = 0.0
        self._stage = 0
        self._unit: float | None = None
        self._measured = 0
        self._stage_steps = 0
        self._steps: tuple[int, float] | None = None
        self._rounds: list[_Round] = []
        self._evaluating = 0.0
        self._is_as_trained = False

    def expect(
        self,
        relative: Sequence[float],
        sample_seconds: float | None = None,
        extra_seconds: float = 0.0,
        *,
        is_as_trained: bool = False,
    ) -> None:
        """Take estimates that hold until something is measured.

        Args:
            relative: what a step of each stage takes, in units of any one of them.
            sample_seconds: what a sample of an evaluation takes.
            extra_seconds: what else an evaluation takes.
            is_as_trained: whether evaluations were tried out as they will be once the model has learned; then what the
                first of them take, by a model that has not, counts no more than the share of the run that is over.
        """
        if self._unit is not None:
            self._unit *= self._factor(self._stage) / relative[self._stage]
        self.relative = tuple(relative)
        self._expected_sample, self._expected_extra = sample_seconds or 0.0, extra_seconds
        self._is_as_trained = is_as_trained
        self.is_estimated = True

    def follow(self, before: Forecast) -> None:
        """Expect what another run of the same plan took, which is over."""
        sample, extra = before.of_evaluations(NOTHING_LEFT)
        self.expect(before.relative, sample, extra, is_as_trained=True)

    def stepped(self, step: int, stage: int = 0) -> None:
        """Note that this step, of this stage, is done."""
        now = time.perf_counter()
        if stage != self._stage:
            # What is measured in the new stage soon outweighs what was expected of it.
            self._stage, self._stage_steps = stage, min(self._stage_steps, KNOWN_STEPS)
        if self._steps is not None and step > self._steps[0]:
            count = step - self._steps[0]
            unit = (now - self._steps[1]) / count / self._factor(stage)
            self._measured += count
            self._stage_steps += count
            weight = max(count / self._stage_steps, min(1.0, count * LEAST_WEIGHT))
            self._unit = unit if self._unit is None else self._unit + weight * (unit - self._unit)
        self._steps = (step, now)

    def paused(self, seconds: float) -> None:
        """Note time that is no step's."""
        if self._steps is not None:
            self._steps = (self._steps[0], self._steps[1] + seconds)

    def evaluated(self, seconds: float, samples: int = 0, *, is_new: bool = True) -> None:
        """Note an evaluation of so many samples, or more time of the one before or after it; it is not a step's."""
        self.paused(seconds)
        self._evaluating += seconds
        if is_new:
            self.evaluations += 1
            self._rounds = [*self._rounds[1 - RECENT :], _Round(seconds, samples)]
        elif self._rounds:
            self._rounds[-1].extra += seconds

    @property
    def evaluating(self) -> float:
        """Return the seconds that evaluations and what belongs to them took so far."""
        return self._evaluating

    @property
    def per_step(self) -> float | None:
        """Return the seconds of a step of this stage, or None before the second step."""
        return None if self._unit is None else self._unit * self._factor(self._stage)

    @property
    def is_founded(self) -> bool:
        """Return whether enough steps were measured to say something of the whole run."""
        return self._measured >= FEWEST_STEPS

    def elapsed(self) -> float:
        """Return the seconds that the run took so far, those of processes before this one included."""
        return self.before + time.perf_counter() - self.started

    def remaining(self, left: Ahead) -> float | None:
        """Return the seconds that all that is left will take, or None before the second step."""
        return None if self._unit is None else self.seconds(left, *self.of_evaluations(left))

    def seconds(self, ahead: Ahead, sample: float, extra: float) -> float:
        """Return the seconds of steps and evaluations; 0 for steps before the second one was measured.

        Args:
            ahead: how many there are.
            sample: seconds of a sample of an evaluation.
            extra: what else an evaluation takes.
        """
        steps = sum(count * self._factor(stage) for stage, count in enumerate(ahead.steps))
        return steps * (self._unit or 0.0) + ahead.samples * sample + ahead.rounds * extra

    def of_evaluations(self, left: Ahead) -> tuple[float, float]:
        """Return the seconds of a sample of an evaluation, and what else one takes: as tried out, and by the last."""
        samples = sum(each.samples for each in self._rounds)
        if not samples:
            return self._expected_sample, self._expected_extra
        sample = sum(each.seconds for each in self._rounds) / samples
        extra = sum(each.extra for each in self._rounds) / len(self._rounds)
        if not self._is_as_trained:
            return sample, extra
        done = self._steps[0] if self._steps else 0
        steps = sum(left.steps)
        trust = steps / max(1, steps + done)
        # Nothing is expected besides evaluations where nothing was rehearsed.
        expected = self._expected_extra or extra
        return trust * self._expected_sample + (1 - trust) * sample, trust * expected + (1 - trust) * extra

    def keep_first(self, step: int, remaining: float, left: Ahead) -> None:
        """Keep the first forecast that is founded, evaluations too, to be compared with the fact at the end."""
        if self.first is None and self.is_founded and (self.is_estimated or self.evaluations):
            self.first = Made(step, step + int(sum(left.steps)), self.elapsed() + remaining)

    def _factor(self, stage: int) -> float:
        return self.relative[stage] if stage < len(self.relative) else 1.0

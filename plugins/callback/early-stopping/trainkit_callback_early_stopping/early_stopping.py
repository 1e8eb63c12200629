"""Early stopping: a patient judge of a sequence of values, and the callback that asks it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt
from trainkit import UsageError, hookimpl
from trainkit.errors import nearest
from trainkit.fit import direction

if TYPE_CHECKING:
    from trainkit.live import Run

SMOOTHING = 0.7
MOST_NOT_FINITE = 3
VAL = "val"


def improves(value: float, best: float | None, min_delta: float, relative: bool) -> bool:
    """Say whether a value lies below the best by more than min_delta, or by more than that share of the best."""
    if best is None:
        return True
    margin = min_delta * abs(best) if relative else min_delta
    return value < best - margin


def is_falling(values: Sequence[float]) -> bool:
    """Say whether the least-squares slope is negative beyond its standard error; false for fewer than 3 values."""
    n = len(values)
    if n < 3:
        return False
    mean_x, mean_y = (n - 1) / 2, sum(values) / n
    spread = sum((x - mean_x) ** 2 for x in range(n))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in enumerate(values)) / spread
    residual = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in enumerate(values))
    return slope < -math.sqrt(residual / (n - 2) / spread)


class Judge:
    """Hear values that should fall, one after the other, and say when there is no more hope.

    Plain: `patience` values in a row without an improvement. Adaptive [reading]: the moving average of the values is
    judged (0.7 of the old, 0.3 of the new), and patience doubles while the slope of the last `patience` values is
    negative beyond its standard error. A value that is not finite improves nothing; the third in a row ends it.
    """

    def __init__(
        self, patience: int, min_delta: float = 0.0, *, relative: bool = False, adaptive: bool = False
    ) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.relative = relative
        self.adaptive = adaptive
        self.reset()

    def reset(self) -> None:
        """Forget all values."""
        self.best: float | None = None
        self.average: float | None = None
        self.recent: list[float] = []
        self.without_improvement = 0
        self.not_finite = 0

    def is_over(self, value: float) -> bool:
        """Hear a value; say whether to stop."""
        if not math.isfinite(value):
            self.not_finite += 1
            self.without_improvement += 1
            return self.not_finite >= MOST_NOT_FINITE or self.without_improvement >= self.allowed()
        self.not_finite = 0
        self.recent = [*self.recent, value][-self.patience :]
        judged = value
        if self.adaptive:
            judged = value if self.average is None else SMOOTHING * self.average + (1 - SMOOTHING) * value
            self.average = judged
        if improves(judged, self.best, self.min_delta, self.relative):
            self.best, self.without_improvement = judged, 0
        else:
            self.without_improvement += 1
        return self.without_improvement >= self.allowed()

    def allowed(self) -> int:
        """Return how many values without improvement are borne now."""
        return self.patience * 2 if self.adaptive and is_falling(self.recent) else self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned from the values."""
        return {
            "best": self.best,
            "average": self.average,
            "recent": list(self.recent),
            "without_improvement": self.without_improvement,
            "not_finite": self.not_finite,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.best = state["best"]
        self.average = state["average"]
        self.recent = list(state["recent"])
        self.without_improvement = state["without_improvement"]
        self.not_finite = state["not_finite"]


class CycleMinimum:
    """Give the least value of each cycle of a schedule that restarts, when the cycle is over.

    Right after a restart values are worse for a while: judged one by one they would use up all patience.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self, cycle: int = 0) -> None:
        """Forget all values, at the beginning of a stage in this cycle."""
        self.cycle = cycle
        self.least: float | None = None

    def hear(self, value: float, cycle: int) -> float | None:
        """Hear a finite value and the cycle of the next step; return the minimum of a cycle that is over, or None."""
        least = value if self.least is None else min(self.least, value)
        if cycle == self.cycle:
            self.least = least
            return None
        self.cycle, self.least = cycle, None
        return least


class EarlyStopping:
    """End the run, or its stage, when the monitored validation value no longer improves.

    It counts evaluations of the validation split and begins anew with each stage. Under a schedule that restarts it
    counts cycles instead, each by its best value. The best checkpoint is kept by the run anyhow and is the one
    evaluated at the end. Its state is saved, so a resumed run stops where the uninterrupted one would have.

    Args:
        patience: evaluations in a row without improvement; under restarts, cycles.
        min_delta: least improvement that counts.
        delta: whether min_delta is absolute or a share of the best value.
        monitor: tag of the value, as val/loss; what decides about the best checkpoint if not set.
        mode: whether the value should fall (min) or rise (max); auto asks the metric; losses fall.
        adaptive: judge a moving average, and be twice as patient while the values clearly improve.
        scope: what ends: the run, or only the stage.
        cycles: whether a schedule that restarts is judged at the ends of its cycles.
    """

    def __init__(
        self,
        patience: PositiveInt = 10,
        min_delta: NonNegativeFloat = 0.0,
        delta: Literal["absolute", "relative"] = "absolute",
        monitor: Annotated[str, Field(pattern=r"^val/.+$")] | None = None,
        mode: Literal["auto", "min", "max"] = "auto",
        adaptive: bool = False,
        scope: Literal["run", "stage"] = "run",
        cycles: bool = True,
    ) -> None:
        self.monitor = monitor
        self.mode = mode
        self.scope = scope
        self.cycles = cycles
        self.minimum = CycleMinimum()
        self.judge = Judge(patience, min_delta, relative=delta == "relative", adaptive=adaptive)

    @hookimpl
    def on_stage_start(self, run: Run) -> None:
        """Begin anew: another selection of samples and another learning rate make other values."""
        self.judge.reset()
        self.minimum.reset(getattr(run.scheduler, "cycle", 0))

    @hookimpl
    def after_evaluation(self, run: Run, split: str, results: Mapping[str, float]) -> None:
        """Judge the monitored value of a validation."""
        # Results are empty when the evaluation failed. After the last stage nothing is left to be stopped.
        if split != VAL or not results or run.moment.progress >= 1 or run.moment.stage >= len(run.stages):
            return
        tag = self.monitor or run.monitor
        mode = self._direction(run) if self.mode == "auto" else self.mode
        value, unit = self._read(tag, results) * (-1 if mode == "max" else 1), "evaluations"
        if (cycle := getattr(run.scheduler, "cycle", None)) is not None and self.cycles and math.isfinite(value):
            self.judge.not_finite, unit = 0, "cycles of the schedule"
            least = self.minimum.hear(value, cycle)
            if least is None:
                return
            value = least
        if not self.judge.is_over(value):
            return
        reason = f"no improvement of {tag} for {self.judge.without_improvement} {unit}"
        if self.judge.not_finite >= MOST_NOT_FINITE:
            reason = f"{tag} was not finite for {self.judge.not_finite} evaluations"
        if self.scope == "stage":
            run.end_stage(reason)
        else:
            run.stop(reason)

    def _direction(self, run: Run) -> str:
        return run.monitor_mode if self.monitor is None else direction(self.monitor, run.metrics)

    def _read(self, tag: str, results: Mapping[str, float]) -> float:
        if tag in results:
            return results[tag]
        close = nearest(tag, results)
        hint = f"; did you mean '{close}'?" if close else ""
        raise UsageError(
            f"early-stopping monitors {tag}, which no evaluation gives{hint}",
            where="callback.early-stopping.monitor" if self.monitor else "evaluate.monitor",
            why=f"an evaluation gives {', '.join(sorted(results))}",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the judge's state, and what was heard of the present cycle."""
        return {**self.judge.state_dict(), "cycle": self.minimum.cycle, "least": self.minimum.least}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.judge.load_state_dict(state)
        # Runs that were begun before cycles were judged have saved none.
        self.minimum.cycle, self.minimum.least = state.get("cycle", 0), state.get("least")

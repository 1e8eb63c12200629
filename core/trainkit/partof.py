"""Where a run stands in something larger, as a fold in its cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PartOf:
    """Say what a run is a part of.

    Args:
        directory: the run directory of the whole.
        name: of this part, as 'fold 2/5'.
        planned: optimizer steps of each part, in their order.
        number: of this part, from 0.
        took: seconds of each part before it.
        kind: what its parts are called in messages.
        resume: the command that goes on with the whole, its directory left out.
    """

    directory: Path
    name: str
    planned: Sequence[int]
    number: int
    took: Sequence[float] = ()
    kind: str = "fold"
    resume: str = "trainkit run --resume"

    @property
    def total_steps(self) -> int:
        """Return the planned steps of the whole."""
        return sum(self.planned)

    @property
    def steps_before(self) -> int:
        """Return the planned steps of the parts before this one."""
        return sum(self.planned[: self.number])

    @property
    def seconds_before(self) -> float:
        """Return the seconds of the parts before this one."""
        return sum(self.took)

    def remaining(self, seconds: float, left: float) -> float:
        """Return the seconds that this part and those after it will still take.

        Parts that are over tell what a planned step takes, with evaluations and saving, and with an end before its
        time; before there is one, this part tells.

        Args:
            seconds: since this part began.
            left: seconds that this part will still take.
        """
        after = sum(self.planned[self.number + 1 :])
        if self.took:
            per_step = self.seconds_before / max(1, self.steps_before)
            # What comes after the last step, as the final table, is no step's time.
            left = max(left, per_step * self.planned[self.number] - seconds)
        else:
            per_step = (seconds + left) / max(1, self.planned[self.number])
        return left + after * per_step

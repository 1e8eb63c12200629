"""Where a run stands in something larger, as a fold in its cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        samples: of each part, by split; those of this part if not given.
        answers_again: whether a part that is over answers its validation samples once more.
        began: reading of `time.perf_counter` when this part began, before data was read for it.
        kind: what its parts are called in messages.
        resume: the command that goes on with the whole, its directory left out.
    """

    directory: Path
    name: str
    planned: Sequence[int]
    number: int
    took: Sequence[float] = ()
    samples: Sequence[Mapping[str, int]] = ()
    answers_again: bool = False
    began: float | None = None
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

    def remaining(self, spent: float, left: float, expected: Sequence[float]) -> float:
        """Return the seconds that this part and those after it will still take.

        Parts that are over tell how much longer or shorter a part takes than is expected of it, as one that ends before
        its time.

        Args:
            spent: seconds since this part began.
            left: seconds that its steps and evaluations will still take.
            expected: seconds of each part, as this one tells.
        """
        before = sum(expected[: self.number])
        factor = self.seconds_before / before if self.took and before else 1.0
        # What comes after the last step, as the final table, is no step's time.
        return max(left, factor * expected[self.number] - spent) + factor * sum(expected[self.number + 1 :])

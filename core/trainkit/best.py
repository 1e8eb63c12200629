"""The best values of a run: pure ranking, and what a run holds of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Ranking = tuple["Ranked", ...]


class Ranked(NamedTuple):
    """Hold a step and the value of the monitored tag that was seen at it."""

    step: int
    value: float


def ranked(ranking: Sequence[Ranked], new: Ranked, keep: int, mode: str) -> Ranking:
    """Return the `keep` best of a ranking and a new value, the best first; of equals the earlier one is ahead.

    Args:
        ranking: what was the best so far, the best first, without NaN.
        new: a later step and its value; NaN has no place.
        keep: how many, at least 1.
        mode: min or max.
    """
    if math.isnan(new.value):
        return tuple(ranking[:keep])
    sign = 1 if mode == "min" else -1
    return tuple(sorted([*ranking, new], key=lambda entry: sign * entry.value)[:keep])


@dataclass
class Best:
    """Hold the best values of the monitored tag so far, the best first."""

    ranking: Ranking = ()

    @property
    def value(self) -> float | None:
        """Return the best value, or None before there is one."""
        return self.ranking[0].value if self.ranking else None

    @property
    def step(self) -> int:
        """Return the step of the best value, or -1."""
        return self.ranking[0].step if self.ranking else -1

    @property
    def steps(self) -> set[int]:
        """Return the steps that are among the best."""
        return {entry.step for entry in self.ranking}

    def state_dict(self) -> list[list[Any]]:
        """Return the ranking as JSON: [step, value] pairs, the best first."""
        return [list(entry) for entry in self.ranking]

    def load_state_dict(self, state: Iterable[Sequence[Any]]) -> None:
        """Take back what `state_dict` gave."""
        self.ranking = tuple(Ranked(*entry) for entry in state)

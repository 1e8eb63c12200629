"""How much each step counts in the average of the weights: a function of the step alone."""

from __future__ import annotations


def warmed_up(step: int, warmup: int) -> float:
    """Return the share of the full rate at a step, from 1: it rises over the warm-up."""
    return min(1.0, step / warmup) if warmup else 1.0


def step_weight(step: int, warmup: int, r: float) -> float:
    """Return how much a step, from 1, counts: step^r times the square of its share of the full rate."""
    return float(step) ** r * warmed_up(step, warmup) ** 2


class Averaging:
    """Tell the share of each step in the average up to it, adding each weight once.

    Args:
        warmup: steps over which the rate rises.
        r: power of the step.
    """

    def __init__(self, warmup: int, r: float) -> None:
        self.warmup, self.r = warmup, r
        self._totals = {0: 0.0}

    def share(self, step: int) -> float:
        """Return the weight of a step over the sum of the weights up to it."""
        return step_weight(step, self.warmup, self.r) / self.total(step)

    def total(self, step: int) -> float:
        """Return the sum of the weights up to a step, added in their order whoever asks."""
        if step not in self._totals:
            # Parameters that began at other steps ask for other totals; each keeps only its last.
            begun = step - 1 if step - 1 in self._totals else 0
            total = self._totals[begun] if begun == 0 else self._totals.pop(begun)
            for number in range(begun + 1, step + 1):
                total += step_weight(number, self.warmup, self.r)
            self._totals[step] = total
        return self._totals[step]

"""Element F1: multisets of the elements of trees compared, over all samples and sample by sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from trainkit import SumMetric

Level = Literal["base", "key", "path"]
LEVELS: tuple[Level, ...] = ("base", "key", "path")
Elements = Mapping[str, Sequence[str]]
NAN = float("nan")


def matches(predicted: Sequence[str], target: Sequence[str]) -> int:
    """Return how many elements two multisets share: the sum over elements of the smaller count."""
    return sum((Counter(predicted) & Counter(target)).values())


def f1(shared: float, predicted: float, target: float) -> float:
    """Return 2 shared / (predicted + target); NaN where there is nothing on either side."""
    return 2 * shared / (predicted + target) if predicted + target else NAN


def sample_sums(level: Level, predicted: Sequence[str], target: Sequence[str]) -> dict[str, float]:
    """Return what one sample adds to the sums of a level; without an element on either side it is no sample."""
    shared = matches(predicted, target)
    sums: dict[str, float] = {"shared": shared, "predicted": len(predicted), "target": len(target)}
    if predicted or target:
        sums |= {"f1": f1(shared, len(predicted), len(target)), "samples": 1}
    return {f"{level}_{name}": value for name, value in sums.items()}


class ElementF1(SumMetric):
    """Compute F1, precision and recall of elements at the levels base, key and path.

    Rules are those of 6.1. Micro figures, precision and recall take the counts of all samples together; macro
    figures are the mean over samples. Where nothing was predicted, precision is undefined: NaN, and an F1 of 0 in the
    mean. A sample with no element on either side is not counted.

    Args:
        level: the level whose micro F1 comes first, and so stands for the metric.
    """

    reads = ("predicted_elements", "target_elements")

    def __init__(self, level: Level = "key") -> None:
        super().__init__()
        self.level: Level = level

    def update(self, predicted_elements: Sequence[Elements], target_elements: Sequence[Elements]) -> None:
        """Add a batch: for each sample its elements by level."""
        sums: dict[str, float] = {}
        for predicted, target in zip(predicted_elements, target_elements, strict=True):
            for level in LEVELS:
                for name, value in sample_sums(level, predicted[level], target[level]).items():
                    sums[name] = sums.get(name, 0) + value
        self.add(**sums)

    def compute(self) -> dict[str, float]:
        """Return F1 as LEVEL-micro and LEVEL-macro, LEVEL-precision and LEVEL-recall, the chosen level first."""
        results: dict[str, float] = {}
        for level in (self.level, *(other for other in LEVELS if other != self.level)):
            shared, predicted, target = (self.total(f"{level}_{name}") for name in ("shared", "predicted", "target"))
            results[f"{level}-micro"] = f1(shared, predicted, target)
            results[f"{level}-macro"] = self.ratio(f"{level}_f1", f"{level}_samples")
            results[f"{level}-precision"] = self.ratio(f"{level}_shared", f"{level}_predicted")
            results[f"{level}-recall"] = self.ratio(f"{level}_shared", f"{level}_target")
        return results

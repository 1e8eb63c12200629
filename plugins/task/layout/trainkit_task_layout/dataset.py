"""Samples in memory, in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from trainkit.contracts import Sample

from .tree import depth, walk


class LayoutDataset:
    """Hold samples; a sample's index is its stable id. `difficulty` and `quality` are there for selections.

    Args:
        samples: the samples.
        reference: the data set whose mean and spread make `difficulty` comparable; the training split.
        warnings: what a user should know about them.
    """

    def __init__(
        self, samples: Sequence[Sample], reference: LayoutDataset | None = None, warnings: Sequence[str] = ()
    ) -> None:
        self.samples, self.warnings = list(samples), warnings
        self.ids = [str(sample["id"]) for sample in self.samples]
        features = np.array([difficulty_features(sample) for sample in self.samples], dtype=np.float64).reshape(-1, 4)
        self._mean, self._std = (
            (features.mean(0), features.std(0)) if reference is None else (reference._mean, reference._std)
        )
        self.difficulty: list[float] = difficulty(features, self._mean, self._std).tolist()
        self.quality: list[float] = [float(sample.get("quality", 1.0)) for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        return [self.samples[i] for i in indices]

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def difficulty_features(sample: Sample) -> tuple[int, int, int, int]:
    """Return what makes a layout hard: nodes, depth, compound keys, distinct bases."""
    keys = [current["key"] for current in walk(sample["layout"]) if current["key"]]
    compound = sum(key.count("@") > 1 for key in keys)
    bases = {key.split("@")[0].split("$")[0] for key in keys}
    return len(keys), depth(sample["layout"]), compound, len(bases)


def difficulty(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return z(nodes) + .5 z(depth) + .5 z(compound keys) + .5 z(distinct bases), [N] [reading: 4.3]."""
    z = (features - mean) / np.where(std > 0, std, 1.0)
    return np.asarray(z @ np.array([1.0, 0.5, 0.5, 0.5]))

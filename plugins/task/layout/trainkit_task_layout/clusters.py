"""Classes of pages: what a page is like by what can be seen of it before its layout is known, and groups of the alike.

The class of a page decides at which training pages a few-shot model looks. 4.14 of the algorithm reference groups by
bases and depths; both are taken from the structure, or from the screenshot where there is none, never from the layout:
that is what is to be predicted.  [reading]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from trainkit.contracts import Sample

from .tree import Node, structure_words, walk

DEPTHS = 12
THUMB = 8
ITERATIONS = 100


def signature(sample: Sample, tags: Sequence[str]) -> np.ndarray:
    """Return what a page is like: the logarithm of 1 + the count of each tag, and the share of nodes at each depth.

    Without tags, as where no training page has a structure, it is the screenshot's brightness in 8 x 8 fields. A page
    that lacks what is asked for is all zeros.
    """
    if tags:
        return _of_structure(sample["structure"], tags)
    if sample["image"] is None:
        return np.zeros(THUMB * THUMB)
    small = Image.fromarray(sample["image"]).convert("L").resize((THUMB, THUMB), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64).flatten() / 255


def tags_of(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Return the tags of all structures, sorted."""
    trees = [sample["structure"] for sample in samples if sample["structure"] is not None]
    return tuple(sorted({structure_words(part["key"])[0] for tree in trees for part in walk(tree)}))


def k_means(points: np.ndarray, count: int) -> np.ndarray:
    """Return up to `count` centres [k, F] of points [N, F]; the same for the same points, as nothing is random.

    The first centre is the point nearest to the mean, each further one the point farthest from all before.
    """
    first = ((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin()
    centres = points[[first]]
    while len(centres) < count:
        far = _distances(points, centres).min(axis=1)
        if far.max() == 0:
            break
        centres = np.concatenate([centres, points[[far.argmax()]]])
    for _ in range(ITERATIONS):
        nearest = _distances(points, centres).argmin(axis=1)
        moved = np.stack(
            [points[nearest == i].mean(axis=0) if (nearest == i).any() else centre for i, centre in enumerate(centres)]
        )
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


class Classes:
    """Hold groups of pages that are alike.

    Args:
        tags: tags that are counted; none where pages are compared by their screenshots.
        mean: of each feature in training.
        spread: its standard deviation in training.
        centres: of the groups, in standardised features.
    """

    def __init__(
        self,
        tags: Sequence[str] = (),
        mean: Sequence[float] = (),
        spread: Sequence[float] = (),
        centres: Sequence[Sequence[float]] = (),
    ) -> None:
        self.tags = tuple(tags)
        self.mean, self.spread = np.array(mean), np.array(spread)
        self.centres = np.array(centres)

    @classmethod
    def learned(cls, samples: Sequence[Sample], count: int) -> Classes:
        """Return up to `count` groups of training samples."""
        tags = tags_of(samples)
        features = np.stack([signature(sample, tags) for sample in samples])
        spread = features.std(axis=0)
        made = cls(tags, features.mean(axis=0), np.where(spread > 0, spread, 1.0))
        made.centres = k_means(made._standardised(features), count)
        return made

    def distances(self, sample: Sample) -> np.ndarray:
        """Return the squared distance of a page to each centre."""
        point = self._standardised(signature(sample, self.tags)[None])
        return np.asarray(_distances(point, self.centres)[0])

    def state_dict(self) -> dict[str, object]:
        """Return what was learned, as JSON."""
        arrays = {"mean": self.mean, "spread": self.spread, "centres": self.centres}
        return {"tags": list(self.tags), **{name: array.tolist() for name, array in arrays.items()}}

    def _standardised(self, features: np.ndarray) -> np.ndarray:
        return np.asarray((features - self.mean) / self.spread)


def _of_structure(structure: Node | None, tags: Sequence[str]) -> np.ndarray:
    counts: Mapping[str, int] = {}
    depths = np.zeros(DEPTHS)
    if structure is not None:
        counts = Counter(structure_words(part["key"])[0] for part in walk(structure))
        row = [structure]
        for level in range(10**9):
            depths[min(level, DEPTHS - 1)] += len(row)
            row = [child for part in row for child in part["children"]]
            if not row:
                break
        depths /= depths.sum()
    return np.concatenate([np.log1p([counts.get(tag, 0) for tag in tags]), depths])


def _distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.asarray(((points[:, None] - centres[None]) ** 2).sum(axis=2))

"""Frechet distance between layouts by features made by hand: never to be called FID, which needs a trained encoder."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np

from .trees import Floats, Nodes

_BOX = ("x", "y", "width", "height")
Features = dict[str, float]


def features(layout: Nodes) -> Features:
    """Return what describes a layout, by name; a feature that is not named is 0.

    The shares of its bases; ln(1 + n) of its nodes, leaves and levels; mean and standard deviation of the centres,
    widths and heights of its boxes. All are about as large as 1, so that none of them decides alone.  [reading: 6.3
    names the groups]
    """
    count = len(layout.keys)
    bases = Counter(key.base for key in layout.parsed)
    found = {f"share of {base}": number / count for base, number in bases.items()}
    if count:
        leaves = count - len(set(layout.parents) - {-1})
        sizes = {"nodes": count, "leaves": leaves, "levels": max(layout.depths)}
        found |= {name: math.log1p(number) for name, number in sizes.items()}
    if layout.boxed:
        boxes = layout.boxes[layout.boxed]
        found |= {f"mean {name}": float(value) for name, value in zip(_BOX, boxes.mean(axis=0), strict=True)}
        found |= {f"spread of {name}": float(value) for name, value in zip(_BOX, boxes.std(axis=0), strict=True)}
    return found


def moment_sums(rows: Iterable[Features]) -> dict[tuple[str, ...], float]:
    """Return the sums of the features over layouts, (name,), and of their products, (name, name) in sorted order."""
    sums: dict[tuple[str, ...], float] = {}
    for row in rows:
        names = sorted(row)
        for i, one in enumerate(names):
            sums[one,] = sums.get((one,), 0.0) + row[one]
            for other in names[i:]:
                sums[one, other] = sums.get((one, other), 0.0) + row[one] * row[other]
    return sums


def mean_and_covariance(sums: dict[tuple[str, ...], float], names: list[str], count: float) -> tuple[Floats, Floats]:
    """Return mean [d] and unbiased covariance [d, d] of `count` > 1 layouts from their sums."""
    mean = np.array([sums.get((name,), 0.0) for name in names]) / count
    products = np.array([[sums.get((min(a, b), max(a, b)), 0.0) for b in names] for a in names])
    return mean, (products - count * np.outer(mean, mean)) / (count - 1)


def frechet_distance(one_mean: Floats, one_cov: Floats, other_mean: Floats, other_cov: Floats) -> float:
    """Return the squared Frechet (2-Wasserstein) distance of two Gaussians.

    |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^1/2), the last trace as the sum of the singular values of
    C1^1/2 C2^1/2, which needs no root of a matrix that is not symmetric.  [paper: Dowson and Landau 1982]

    Args:
        one_mean: [d].
        one_cov: [d, d], symmetric; eigenvalues below 0, from rounding, count as 0.
        other_mean: [d].
        other_cov: [d, d], as `one_cov`.
    """
    shift = float(np.square(one_mean - other_mean).sum())
    cross = np.linalg.svd(_root(one_cov) @ _root(other_cov), compute_uv=False).sum()
    return max(0.0, shift + float(np.trace(one_cov) + np.trace(other_cov) - 2 * cross))


def _root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(values.clip(min=0))) @ vectors.T)

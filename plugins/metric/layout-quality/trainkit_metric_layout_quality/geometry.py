"""Geometry of boxes [n, 4]: centre x, centre y, width, height as shares of the picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .trees import Floats

_NEAR_ONE = 1 - 1e-6


def edges(boxes: Floats) -> Floats:
    """Return left, top, right and bottom [n, 4] of boxes."""
    centres, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centres - half, centres + half], axis=1)


def intersections(one: Floats, other: Floats) -> Floats:
    """Return the area [n, m] that each box shares with each other box."""
    a, b = edges(one)[:, None], edges(other)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    return np.asarray(sides.clip(min=0).prod(axis=-1))


def areas(boxes: Floats) -> Floats:
    """Return the area [n] of each box."""
    return np.asarray(boxes[:, 2] * boxes[:, 3])


def iou(one: Floats, other: Floats) -> Floats:
    """Return intersection over union [n, m]; for boxes without an area, whether they are the same box."""
    shared = intersections(one, other)
    united = areas(one)[:, None] + areas(other)[None] - shared
    ratio: Floats = (one[:, None] == other[None]).all(axis=-1).astype(np.float64)
    np.divide(shared, united, out=ratio, where=united > 0)
    return ratio


def alignment(boxes: Floats, nested: NDArray[np.bool_] | None = None) -> float:
    """Return the mean over elements of -ln(1 - d), d the distance of the nearest line of another element.

    Lines are left, centre and right, top, middle and bottom, each compared with its own kind. An element that has no
    other to be compared with adds 0; distances from 1 - 1e-6 on count as that much.  [paper: 2009.05284, 2108.00871;
    leaving out what is nested, and the bound, are ours]

    Args:
        boxes: [n, 4], n > 0.
        nested: [n, n] pairs of which one lies in the other by intention: they are not compared.
    """
    lines = np.concatenate([edges(boxes), boxes[:, :2]], axis=1)
    nearest = np.abs(lines[:, None] - lines[None]).min(axis=-1)
    pairs = _pairs(len(boxes), nested)
    distances = np.where(pairs, nearest, np.inf).min(axis=1)[pairs.any(axis=1)]
    return float(-np.log1p(-distances.clip(max=_NEAR_ONE)).sum() / len(boxes))


def overlap(boxes: Floats, nested: NDArray[np.bool_] | None = None) -> float:
    """Return the sum over pairs of the share of one element that another covers, per element.

    An element without an area adds nothing.  [paper: 2108.00871; leaving out what is nested is ours]

    Args:
        boxes: [n, 4], n > 0.
        nested: as for `alignment`.
    """
    own = areas(boxes)[:, None]
    shared = np.where(_pairs(len(boxes), nested), intersections(boxes, boxes), 0)
    return float(np.divide(shared, own, out=np.zeros_like(shared), where=own > 0).sum() / len(boxes))


def overlapping(boxes: Floats, nested: NDArray[np.bool_] | None = None) -> tuple[float, int]:
    """Return the sum of the IoU of all pairs of elements that overlap, and their number; each pair counts once."""
    pairs = np.triu(_pairs(len(boxes), nested), 1) & (intersections(boxes, boxes) > 0)
    return float(iou(boxes, boxes)[pairs].sum()), int(pairs.sum())


def _pairs(count: int, nested: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    pairs = ~np.eye(count, dtype=bool)
    return pairs if nested is None else pairs & ~(nested | nested.T)

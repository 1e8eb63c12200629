"""Metrics of several ranks: each sums over its part of the batches, and the sums merge into those of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .states import packed, unpacked
from .world import World

if TYPE_CHECKING:
    from trainkit.live import BoundMetric


def merges(metrics: Iterable[BoundMetric]) -> bool:
    """Return whether the sums of each metric can be merged: it has `sums` and `merge`, as a SumMetric has."""
    return all(hasattr(bound.metric, "merge") and hasattr(bound.metric, "sums") for bound in metrics)


def merge_metrics(world: World, metrics: Sequence[Any]) -> None:
    """Put the sums of all ranks into the metrics of rank 0, in the order of ranks."""
    parts = world.everyones_bytes(packed([dict(metric.sums) for metric in metrics]))
    if not world.is_first:
        return
    for metric in metrics:
        metric.reset()
    for part in parts:
        for metric, sums in zip(metrics, unpacked(part), strict=True):
            metric.merge(sums)

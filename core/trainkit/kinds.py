"""The kinds of component. A module of its own, so that a listing learns them without importing pluggy."""

from __future__ import annotations

KINDS = ("strategy", "task", "loss", "augmenter", "optimizer", "scheduler", "metric", "adapter", "callback")
GROUP_PREFIX = "trainkit."


def group(kind: str) -> str:
    """Return the entry-point group of a kind."""
    return GROUP_PREFIX + kind

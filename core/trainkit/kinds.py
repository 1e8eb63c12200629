"""The kinds of component: of most a run has one, of some a list.

A module of its own, so that a listing learns them without importing pluggy.
"""

from __future__ import annotations

KINDS = ("strategy", "task", "loss", "augmenter", "optimizer", "scheduler", "metric", "adapter", "callback")
LIST_KINDS = ("augmenter", "metric", "callback")
ONE_KINDS = tuple(kind for kind in KINDS if kind not in LIST_KINDS)
GROUP_PREFIX = "trainkit."


def group(kind: str) -> str:
    """Return the entry-point group of a kind."""
    return GROUP_PREFIX + kind

"""Offer the strategy `phase2`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_strategy() -> type:
    from .phase2 import Phase2

    return Phase2

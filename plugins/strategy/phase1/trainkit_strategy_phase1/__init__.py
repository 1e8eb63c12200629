"""Offer the strategy `phase1`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_strategy() -> type:
    from .phase1 import Phase1

    return Phase1

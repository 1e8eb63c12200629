"""Offer the strategy `phase4`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_strategy() -> type:
    from .phase4 import Phase4

    return Phase4

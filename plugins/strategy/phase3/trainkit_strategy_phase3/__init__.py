"""Offer the strategy `phase3`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_strategy() -> type:
    from .phase3 import Phase3

    return Phase3

"""Offer the strategy `baseline`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_strategy() -> type:
    from .baseline import Baseline

    return Baseline

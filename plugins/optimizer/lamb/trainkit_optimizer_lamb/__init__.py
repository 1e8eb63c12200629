"""Offer the optimizer `lamb`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_optimizer() -> type:
    from .lamb import LAMB

    return LAMB

"""Offer the scheduler `linear`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_scheduler() -> type:
    from .linear import Linear

    return Linear

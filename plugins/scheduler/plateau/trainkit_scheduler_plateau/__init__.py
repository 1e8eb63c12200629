"""Offer the scheduler `plateau`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_scheduler() -> type:
    from .plateau import Plateau

    return Plateau

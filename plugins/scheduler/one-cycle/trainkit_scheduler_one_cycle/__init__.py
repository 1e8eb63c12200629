"""Offer the scheduler `one-cycle`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_scheduler() -> type:
    from .one_cycle import OneCycle

    return OneCycle

"""Offer the scheduler `wsd`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_scheduler() -> type:
    from .wsd import WSD

    return WSD

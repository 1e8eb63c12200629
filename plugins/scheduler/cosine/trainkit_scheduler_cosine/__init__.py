"""Offer the scheduler `cosine`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_scheduler() -> type:
    from .cosine import Cosine

    return Cosine

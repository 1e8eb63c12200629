"""Offer the scheduler `cosine-restarts`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_scheduler() -> type:
    from .cosine_restarts import CosineRestarts

    return CosineRestarts

"""Offer the scheduler `polynomial`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_scheduler() -> type:
    from .polynomial import Polynomial

    return Polynomial

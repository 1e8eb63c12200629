"""Offer the scheduler `exponential`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_scheduler() -> type:
    from .exponential import Exponential

    return Exponential

"""Offer the scheduler `constant`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_scheduler() -> type:
    from .constant import Constant

    return Constant

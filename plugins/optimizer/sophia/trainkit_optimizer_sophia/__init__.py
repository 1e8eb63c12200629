"""Offer the optimizer `sophia`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_optimizer() -> type:
    from .sophia import Sophia

    return Sophia

"""Offer the optimizer `lion`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_optimizer() -> type:
    from .lion import Lion

    return Lion

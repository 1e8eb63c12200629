"""Offer the optimizer `adan`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_optimizer() -> type:
    from .adan import Adan

    return Adan

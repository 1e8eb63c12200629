"""Offer the optimizer `prodigy`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_optimizer() -> type:
    from .prodigy import Prodigy

    return Prodigy

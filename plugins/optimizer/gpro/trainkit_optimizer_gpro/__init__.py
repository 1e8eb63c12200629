"""Offer the optimizer `gpro`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_optimizer() -> type:
    from .gpro import GPro

    return GPro

"""Offer the callback `ema`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_callback() -> type:
    from .ema import EMA

    return EMA

"""Offer the optimizer `adafactor`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_optimizer() -> type:
    from .adafactor import Adafactor

    return Adafactor

"""Offer the callback `unfreezing`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_callback() -> type:
    from .unfreezing import Unfreezing

    return Unfreezing

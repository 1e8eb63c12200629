"""Offer the adapter `head`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_adapter() -> type:
    from .head import Head

    return Head

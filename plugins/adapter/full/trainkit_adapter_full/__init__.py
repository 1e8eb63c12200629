"""Offer the adapter `full`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_adapter() -> type:
    from .full import Full

    return Full

"""Offer the callback `early-stopping`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_callback() -> type:
    from .early_stopping import EarlyStopping

    return EarlyStopping

"""Offer the callback `data-dropout`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_callback() -> type:
    from .data_dropout import DataDropout

    return DataDropout

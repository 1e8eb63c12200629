"""Offer the optimizer `muon`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_optimizer() -> type:
    from .muon import Muon

    return Muon

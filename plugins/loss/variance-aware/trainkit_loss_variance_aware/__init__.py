"""Offer the loss `variance-aware`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_loss() -> type:
    from .variance_aware import VarianceAware

    return VarianceAware

"""Offer the loss `focal`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_loss() -> type:
    from .focal import FocalLoss

    return FocalLoss

"""Offer the loss `multitask`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_loss() -> type:
    from .multitask import Multitask

    return Multitask

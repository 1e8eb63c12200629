"""Offer the optimizer `adamw`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_optimizer() -> type:
    from .adamw import AdamW

    return AdamW

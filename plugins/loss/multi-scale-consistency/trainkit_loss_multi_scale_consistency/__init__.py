"""Offer the loss `multi-scale-consistency`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_loss() -> type:
    from .multi_scale_consistency import MultiScaleConsistency

    return MultiScaleConsistency

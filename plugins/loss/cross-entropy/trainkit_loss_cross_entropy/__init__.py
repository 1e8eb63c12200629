"""Offer the loss `cross-entropy`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_loss() -> type:
    from .cross_entropy import CrossEntropy

    return CrossEntropy

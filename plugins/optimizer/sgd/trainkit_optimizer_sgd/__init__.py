"""Offer the optimizer `sgd`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_optimizer() -> type:
    from .sgd import SGD

    return SGD

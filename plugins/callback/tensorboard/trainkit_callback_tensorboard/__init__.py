"""Offer the callback `tensorboard`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_callback() -> type:
    from .tensorboard import TensorBoard

    return TensorBoard

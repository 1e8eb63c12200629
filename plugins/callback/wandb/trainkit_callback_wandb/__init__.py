"""Offer the callback `wandb`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_callback() -> type:
    from .wandb import WeightsAndBiases

    return WeightsAndBiases

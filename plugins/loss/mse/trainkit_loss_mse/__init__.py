"""Offer the loss 'mse' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_loss() -> Any:
    from .mse import MeanSquaredError

    return MeanSquaredError

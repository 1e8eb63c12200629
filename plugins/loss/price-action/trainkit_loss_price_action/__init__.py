"""Offer the loss 'price-action' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_loss() -> Any:
    from .price_action import PriceAction

    return PriceAction

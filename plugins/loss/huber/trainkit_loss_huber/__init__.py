"""Offer the loss 'huber' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_loss() -> Any:
    from .huber import Huber

    return Huber

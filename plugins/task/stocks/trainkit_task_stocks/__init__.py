"""Offer the task 'stocks' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_task() -> Any:
    from .task import StocksTask

    return StocksTask

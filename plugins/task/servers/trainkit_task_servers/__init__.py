"""Offer the task 'servers' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_task() -> Any:
    from .task import ServersTask

    return ServersTask

"""Offer the callback `system-monitor`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_callback() -> type:
    from .system_monitor import SystemMonitor

    return SystemMonitor

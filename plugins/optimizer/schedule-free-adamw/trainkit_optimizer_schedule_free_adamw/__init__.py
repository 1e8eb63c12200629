"""Offer the optimizer `schedule-free-adamw`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_optimizer() -> type:
    from .schedule_free_adamw import ScheduleFreeAdamW

    return ScheduleFreeAdamW

"""Offer the task 'recipes' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_task() -> Any:
    from .task import RecipesTask

    return RecipesTask

"""Offer the metric 'recipe-quality' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_metric() -> Any:
    from .recipe_quality import RecipeQuality

    return RecipeQuality

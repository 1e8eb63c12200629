"""Offer the augmenter 'recipe-text' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_augmenter() -> Any:
    from .recipe_text import RecipeText

    return RecipeText

"""Offer the augmenter 'layout' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_augmenter() -> Any:
    from .layout import LayoutAugmenter

    return LayoutAugmenter

"""Offer the augmenter 'screenshot' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_augmenter() -> Any:
    from .screenshot import ScreenshotAugmenter

    return ScreenshotAugmenter

"""Offer the augmenter 'structure' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_augmenter() -> Any:
    from .structure import StructureAugmenter

    return StructureAugmenter

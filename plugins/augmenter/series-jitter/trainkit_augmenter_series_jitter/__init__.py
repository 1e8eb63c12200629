"""Offer the augmenter 'series-jitter' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_augmenter() -> Any:
    from .series_jitter import SeriesJitter

    return SeriesJitter

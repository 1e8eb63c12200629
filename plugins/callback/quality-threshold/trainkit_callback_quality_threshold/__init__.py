"""Offer the callback `quality-threshold`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_callback() -> type:
    from .quality_threshold import QualityThreshold

    return QualityThreshold

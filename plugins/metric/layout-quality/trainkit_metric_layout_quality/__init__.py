"""Offer the metric 'layout-quality' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_metric() -> Any:
    from .layout_quality import LayoutQuality

    return LayoutQuality

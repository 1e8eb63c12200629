"""Offer the metric 'text-overlap' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_metric() -> Any:
    from .text_overlap import TextOverlap

    return TextOverlap

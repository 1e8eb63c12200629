"""Offer the metric 'perplexity' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_metric() -> Any:
    from .perplexity import Perplexity

    return Perplexity

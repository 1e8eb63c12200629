"""Offer the metric 'element-f1' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_metric() -> Any:
    from .element_f1 import ElementF1

    return ElementF1

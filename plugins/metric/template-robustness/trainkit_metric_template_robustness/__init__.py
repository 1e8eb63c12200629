"""Offer the metric 'template-robustness' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_metric() -> Any:
    from .template_robustness import TemplateRobustness

    return TemplateRobustness

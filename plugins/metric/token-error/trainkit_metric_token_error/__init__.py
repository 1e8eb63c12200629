"""Offer the metric 'token-error' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_metric() -> Any:
    from .token_error import TokenError

    return TokenError

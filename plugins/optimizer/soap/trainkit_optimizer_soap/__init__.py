"""Offer the optimizer `soap`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_optimizer() -> type:
    from .soap import SOAP

    return SOAP

"""Offer the callback `curriculum`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_callback() -> type:
    from .curriculum import Curriculum

    return Curriculum

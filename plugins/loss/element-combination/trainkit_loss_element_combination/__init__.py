"""Offer the loss `element-combination`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_loss() -> type:
    from .element_combination import ElementCombination

    return ElementCombination

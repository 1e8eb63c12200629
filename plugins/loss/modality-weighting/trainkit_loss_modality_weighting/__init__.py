"""Offer the loss `modality-weighting`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_loss() -> type:
    from .modality_weighting import ModalityWeighting

    return ModalityWeighting

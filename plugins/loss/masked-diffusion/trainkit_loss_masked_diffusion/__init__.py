"""Offer the loss `masked-diffusion`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_loss() -> type:
    from .masked_diffusion import MaskedDiffusion

    return MaskedDiffusion

"""Offer the callback `gradient-noise`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_callback() -> type:
    from .gradient_noise import GradientNoise

    return GradientNoise

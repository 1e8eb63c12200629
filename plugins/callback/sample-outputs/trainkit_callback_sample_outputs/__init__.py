"""Offer the callback `sample-outputs`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_callback() -> type:
    from .sample_outputs import SampleOutputs

    return SampleOutputs

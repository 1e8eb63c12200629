"""Offer the adapter `lora`."""

from __future__ import annotations

from trainkit import hookimpl


@hookimpl
def trainkit_adapter() -> type:
    from .lora import LoRA

    return LoRA

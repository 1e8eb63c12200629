"""The names of metrics as other tools have them. Pure functions."""

from __future__ import annotations

from typing import Literal

Style = Literal["trainkit", "hf", "flat"]


def renamed(tag: str, style: Style) -> str:
    """Return a tag as a style writes it.

    Args:
        tag: as in metrics.jsonl, 'val/loss'.
        style: 'trainkit' leaves it; 'hf' says eval/loss, as the Trainer of Hugging Face does; 'flat' says val_loss.
    """
    if style == "flat":
        return tag.replace("/", "_")
    if style == "hf" and tag.startswith("val/"):
        return "eval/" + tag.removeprefix("val/")
    return tag

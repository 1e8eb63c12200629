"""Actions: windows with the one that would have been right, and answers with the one that a model takes."""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from trainkit.contracts import Answer, Batch, Panel
from trainkit.later import LatePanels

from .features import action_labels

NAMES = ("buy", "hold", "sell")


def labels_of(batch: Batch, close: int, threshold: float) -> Tensor:
    """Return the right action [B] of each window of a batch, by unscaled closes; -100 where one is missing.

    Args:
        batch: of windows.
        close: which target is the close.
        threshold: least move to buy or sell, as a share of the last close.
    """
    loc, scale = batch["loc"][:, close].double(), batch["scale"][:, close].double()

    def close_at(part: str, step: int) -> Tensor:
        values = batch[f"{part}_values"][:, step, close].double() * scale + loc
        return torch.where(batch[f"{part}_observed_mask"][:, step, close], values, torch.nan)

    return action_labels(close_at("past", -1), close_at("future", 0), threshold)


class WithActions:
    """Hold windows whose batches also tell the right action; all else is theirs.

    Args:
        windows: of a split.
        close: which target is the close.
        threshold: least move to buy or sell, as a share of the last close.
    """

    def __init__(self, windows: Any, close: int, threshold: float) -> None:
        self.windows, self.close, self.threshold = windows, close, threshold

    def __len__(self) -> int:
        return len(self.windows)

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        batch: dict[str, Any] = self.windows.__getitems__(indices)
        return {**batch, "action_labels": labels_of(batch, self.close, self.threshold)}

    def __getattr__(self, name: str) -> Any:
        # Copying and unpickling ask before there are windows.
        if name == "windows":
            raise AttributeError(name)
        return getattr(self.windows, name)


def with_actions(answers: Sequence[Answer], logits: Tensor) -> list[Answer]:
    """Return answers that also tell the odds of buying, holding and selling at the next close.

    Args:
        answers: one for each sample.
        logits: [B, 3].
    """
    told = []
    for answer, odds in zip(answers, logits.float().softmax(-1).tolist(), strict=True):
        action = {name: round(share, 4) for name, share in zip(NAMES, odds, strict=True)}
        data = {**answer.data, "action": action}
        text = "  ".join(f"{name} {share:.0%}" for name, share in action.items())
        files = ChainMap({".json": json.dumps(data, indent=1, allow_nan=False) + "\n"}, answer.files)
        panels = LatePanels(partial(_with_panel, answer, Panel("at the next close", text)))
        told.append(replace(answer, data=data, files=files, panels=panels))
    return told


def _with_panel(answer: Answer, panel: Panel) -> list[Panel]:
    return [*answer.panels, panel]

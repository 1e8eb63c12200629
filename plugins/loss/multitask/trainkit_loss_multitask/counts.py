"""How often each class and each flag was seen in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .pages import positive_weights

KEPT = ("labels", "flags")


class Counts(nn.Module):
    """Count labels by class [V] and flags by off and on [2, P], in buffers that take their size at the first step."""

    labels: Tensor
    flags: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))
        self.register_buffer("flags", torch.zeros(2, 0, dtype=torch.long))

    def of_classes(self, classes: int) -> Tensor:
        """Return the labels seen by class [V]: zeros before the first step."""
        return self.labels if self.labels.numel() else self.labels.new_zeros(classes)

    def pos_weight(self) -> Tensor | None:
        """Return neg / pos of each flag [P]; None before the first step."""
        return positive_weights(self.flags) if self.flags.numel() else None

    def advance(self, sums: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Add what a step has seen."""
        for name in KEPT:
            if name in sums:
                before, new = getattr(self, name), sums[name][0]
                setattr(self, name, before + new if before.numel() else new.clone())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The sizes are known at the first step only: the buffers take those of what is loaded.
        for name in KEPT:
            if (stored := state_dict.get(f"{prefix}{name}")) is not None:
                setattr(self, name, torch.zeros_like(stored, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *rest)

"""A task of nothing but tensors and a model: what benchmarks give to trainkit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from trainkit.contracts import Splits


class BareTask:
    """Give a model and its data to trainkit; no metric asks, and nothing is learned from the data.

    Args:
        splits: makes the data.
        model: makes the model.
        gives: the names of batches and outputs.
    """

    predicts: frozenset[str] = frozenset()
    sample_keys: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = {"metric": [], "callback": ["no:tensorboard"]}
    collate = None

    def __init__(self, splits: Callable[[], Splits], model: Callable[[], nn.Module], *gives: str) -> None:
        self.splits, self.model, self.gives = splits, model, frozenset(gives)

    def read(self, data: Any, seed: int) -> Splits:
        """Return the data."""
        del data, seed
        return self.splits()

    def fit(self, train: Any) -> None:
        """Learn nothing."""
        del train

    def build_model(self) -> nn.Module:
        """Return the model."""
        return self.model()

    def predict(self, model: nn.Module, batch: Any, outputs: Any) -> dict[str, Any]:
        """Return nothing: no metric asks."""
        del model, batch, outputs
        return {}

    def baselines(self) -> dict[str, Any]:
        """Return none."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: nothing was learned from the data."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back nothing."""
        del state

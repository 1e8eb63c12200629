"""Token accuracy: right tokens / real tokens, and the share of sequences that are right throughout."""

from __future__ import annotations

import torch
from torch import Tensor
from trainkit import SumMetric
from trainkit.contracts import IGNORED_LABEL


def right_tokens(predictions: Tensor, labels: Tensor, pad_id: int | None = None) -> tuple[Tensor, Tensor]:
    """Return which positions are right and which are real, both of the labels' shape.

    Args:
        predictions: [..., L] token ids.
        labels: [..., L] token ids; -100 and `pad_id` are not real.
        pad_id: the id that pads labels, where it is not -100.
    """
    if predictions.shape != labels.shape:
        raise ValueError(
            f"predictions have the shape {tuple(predictions.shape)}, labels {tuple(labels.shape)}: "
            "predict token ids at the positions of the labels"
        )
    real = labels != IGNORED_LABEL
    if pad_id is not None:
        real &= labels != pad_id
    return (predictions == labels) & real, real


class TokenAccuracy(SumMetric):
    """Compute accuracy, the share of right tokens, and exact, the share of faultless sequences.

    Rules are those of 6.1. Padding counts nowhere: who predicts only padding is right nowhere. A sequence without a
    real token is not counted; without any, both figures are NaN.

    Args:
        pad_id: the id that pads labels, where they are not padded with -100.
    """

    reads = ("predictions", "labels")

    def __init__(self, pad_id: int | None = None) -> None:
        super().__init__()
        self.pad_id = pad_id

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Add a batch: token ids [B, L] against labels [B, L], or [B] against [B]."""
        right, real = right_tokens(predictions, labels, self.pad_id)
        right, real = (flags.reshape(len(labels), -1) for flags in (right, real))
        counted = real.any(dim=1)
        faultless = counted & torch.eq(right, real).all(dim=1)
        self.add(right=right.sum(), tokens=real.sum(), faultless=faultless.sum(), sequences=counted.sum())

    def compute(self) -> dict[str, float]:
        """Return `accuracy` and `exact`."""
        return {"accuracy": self.ratio("right", "tokens"), "exact": self.ratio("faultless", "sequences")}

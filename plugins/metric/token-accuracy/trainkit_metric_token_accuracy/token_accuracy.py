"""Token accuracy: right tokens / real tokens, and the share of sequences that are right throughout."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
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


def among_best(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return where the label is among the k best classes, of the labels' shape; a tie counts against the label.

    So logits that are all equal, or not numbers, find nothing: a `topk` would find whatever stands first.

    Args:
        logits: [..., C].
        labels: [...] classes; what is found at a negative one means nothing.
        k: how many classes are looked at.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits have the shape {tuple(logits.shape)}, labels {tuple(labels.shape)}: "
            "top_k wants logits [..., C] at the positions of the labels"
        )
    own = logits.gather(-1, labels.clamp(min=0).unsqueeze(-1))
    return torch.sum(~(logits < own), dim=-1) <= k


class TokenAccuracy(SumMetric):
    """Compute accuracy, the share of right tokens, and exact, the share of faultless sequences.

    Rules are those of 6.1. Padding counts nowhere: who predicts only padding is right nowhere. A sequence without a
    real token is not counted; without any, all figures are NaN. Where padding is a class that is predicted, as an
    empty slot of a layout (`pad_id`), what is put into an empty slot lowers `precision` = right / predicted and spoils
    `exact`; accuracy is then the recall.  [reading: 6.1 counts right tokens only]

    Args:
        pad_id: the id that pads labels, where they are not padded with -100.
        top_k: also compute the share of real tokens that are among the k best of `logits`, ties counted against them.
            Logits come from the forward pass of the loss: after the right tokens, or, where `masked` is given, at
            the hidden positions, which alone are counted. They are not those of free-running predictions.
    """

    def __init__(self, pad_id: int | None = None, top_k: PositiveInt | None = None) -> None:
        super().__init__()
        self.pad_id, self.top_k = pad_id, top_k

    def update(
        self, predictions: Tensor, labels: Tensor, logits: Tensor | None = None, masked: Tensor | None = None
    ) -> None:
        """Add a batch: token ids [B, L] against labels [B, L], or [B] against [B]; logits [B, L, C], masked [B, L]."""
        right, real = right_tokens(predictions, labels, self.pad_id)
        faults = real & ~right
        if self.pad_id is not None:
            filled = (predictions != self.pad_id) & (labels != IGNORED_LABEL)
            faults |= filled & ~real
            self.add(filled=filled.sum())
        counted, faulty = (flags.reshape(len(labels), -1).any(dim=1) for flags in (real, faults))
        self.add(right=right.sum(), tokens=real.sum(), faultless=(counted & ~faulty).sum(), sequences=counted.sum())
        if self.top_k is not None and logits is not None:
            looked_at = real if masked is None else real & masked
            found = among_best(logits, labels, self.top_k) & looked_at
            self.add(found=found.sum(), looked_at=looked_at.sum())

    def compute(self) -> dict[str, float]:
        """Return `accuracy` and `exact`; `precision` where `pad_id` is set, `top-K` where `top_k` is."""
        results = {"accuracy": self.ratio("right", "tokens"), "exact": self.ratio("faultless", "sequences")}
        if self.pad_id is not None:
            results["precision"] = self.ratio("right", "filled")
        if self.top_k is not None:
            results[f"top-{self.top_k}"] = self.ratio("found", "looked_at")
        return results

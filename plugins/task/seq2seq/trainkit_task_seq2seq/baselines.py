"""Trivial writers, beside which a model's figures mean something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from trainkit.contracts import Batch

Baseline = Callable[[Batch], Mapping[str, Any]]


def most_frequent(targets: Sequence[str]) -> str:
    """Return the target that comes most often, of several the first one; '' of none."""
    counts = Counter(targets)
    return max(counts, key=lambda text: counts[text]) if counts else ""


def token_counts(rows: Sequence[Any], size: int) -> list[int]:
    """Return how often each token comes in rows of tokens."""
    counts = np.zeros(size, np.int64)
    for row in rows:
        counts += np.bincount(np.asarray(row, np.int64), minlength=size)[:size]
    found: list[int] = counts.tolist()
    return found


def baselines_of(frequent: str, counts: Sequence[int]) -> dict[str, Baseline]:
    """Return writers that copy the input, always write one text, or know how often tokens come and nothing else.

    Args:
        frequent: the text.
        counts: of each token in the targets of training.
    """
    # One is added to each count, so that no token is impossible [Laplace].
    frequencies = torch.tensor(counts, dtype=torch.float64).add(1)
    log_probabilities = (frequencies / frequencies.sum()).log().float()

    def copy(batch: Batch) -> Mapping[str, Any]:
        return {"texts": list(batch["inputs"])}

    def always(batch: Batch) -> Mapping[str, Any]:
        return {"texts": [frequent] * len(batch["inputs"])}

    def unigrams(batch: Batch) -> Mapping[str, Any]:
        labels = batch["labels"]
        return {"logits": log_probabilities.to(labels.device).expand(*labels.shape, -1)}

    return {"copy": copy, "most-frequent": always, "token-frequencies": unigrams}

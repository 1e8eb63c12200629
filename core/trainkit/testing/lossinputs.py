"""A batch and outputs to check losses with: every name that losses of sequences, of layouts and of series read."""

from __future__ import annotations

import torch
from torch import Tensor

from trainkit.contracts import IGNORED_LABEL

from .seriesinputs import series_inputs

SAMPLES, SLOTS, CLASSES = 6, 5, 7
LENGTHS = (5, 3, 1, 4, 2, 5)
EMPTY_SLOT = 0
POINTERS, NODES = 3, 4
SCALES, FEATURES, FLAGS = 3, 8, 3
# Finite in fp16 too.
IMPOSSIBLE = -1e4


def loss_inputs() -> dict[str, Tensor]:
    """Return the values of 6 samples of different lengths, along dimension 0 of each that is not SHARED.

    Among the labels are the ignored one (no slot at all) and 0, the class of an empty slot. What belongs to slots
    agrees: only real ones are hidden, only filled ones have boxes and sources, and a parent comes before its children.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (SAMPLES, SLOTS), generator=generator)
    for sample, length in enumerate(LENGTHS):
        labels[sample, length:] = IGNORED_LABEL
    logits = torch.randn(SAMPLES, SLOTS, CLASSES, generator=generator)
    values = {
        "logits": logits,
        "labels": labels,
        "props_logits": torch.randn(SAMPLES, FLAGS, generator=generator),
        "props": torch.randint(0, 2, (SAMPLES, FLAGS), generator=generator).float(),
    }
    filled = (labels != IGNORED_LABEL) & (labels != EMPTY_SLOT)
    values |= _noise(labels, generator) | _pointers(filled, generator) | _rest(filled, logits, generator)
    return values | series_inputs(SAMPLES)


def _noise(labels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    rate = 0.3 + 0.7 * torch.rand(SAMPLES, generator=generator)
    masked = (labels != IGNORED_LABEL) & (torch.rand(labels.shape, generator=generator) < rate.unsqueeze(1))
    masked[:, 0] = True
    return {"masked": masked, "mask_rate": rate, "elbo_weight": 1 / rate}


def _pointers(filled: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Return sources that end in the stop sign, and logits of pointers; the last node of odd samples does not exist."""
    sources = torch.full((SAMPLES, SLOTS, POINTERS), IGNORED_LABEL)
    for slot in range(SLOTS):
        count = slot % POINTERS
        sources[:, slot, :count] = torch.randint(0, NODES - 1, (SAMPLES, count), generator=generator)
        sources[:, slot, count] = NODES
    sources[~filled] = IGNORED_LABEL
    logits = torch.randn(SAMPLES, SLOTS, POINTERS, NODES + 1, generator=generator)
    logits[1::2, :, :, NODES - 1] = IMPOSSIBLE
    return {"sources": sources, "pointer_logits": logits}


def _rest(filled: Tensor, logits: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    parents = torch.tensor([-1, *((slot - 1) // 2 for slot in range(1, SLOTS))]).repeat(SAMPLES, 1)
    has_parent = (parents >= 0) & filled & filled.gather(1, parents.clamp(min=0))
    coarse = torch.randn(SAMPLES, SCALES - 1, *logits.shape[1:], generator=generator)
    return {
        "tree_parent": parents.masked_fill(~has_parent, -1),
        "boxes": 0.1 + 0.8 * torch.rand(SAMPLES, SLOTS, 4, generator=generator),
        "box_mask": filled,
        "box_predictions": 0.1 + 0.8 * torch.rand(SAMPLES, SLOTS, 4, generator=generator),
        "visual_features": torch.randn(SAMPLES, FEATURES, generator=generator),
        "structural_features": torch.randn(SAMPLES, FEATURES, generator=generator),
        "scale_logits": torch.cat([coarse, logits.unsqueeze(1)], dim=1),
    }

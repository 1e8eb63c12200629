"""Samples as a batch: padded to the longest among them, the decoder's inputs one step behind the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trainkit.contracts import IGNORED_LABEL, Sample

from .encoding import Limits, input_ids, labels
from .flat import Array
from .tokenizer import Tokens


def padded(rows: Sequence[Array], fill: int) -> Tensor:
    """Return rows as int64 [B, L], those shorter than the longest filled up; L is 1 at least."""
    width = max(1, *(len(row) for row in rows))
    out = np.full((len(rows), width), fill, np.int64)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return torch.from_numpy(out)


def shifted_right(labels: Tensor, start: int, pad: int) -> Tensor:
    """Return what the decoder reads, int64 [B, L]: the labels one step later, behind the token it starts at."""
    found = labels.new_full(labels.shape, start)
    found[:, 1:] = labels[:, :-1]
    return found.masked_fill_(found == IGNORED_LABEL, pad)


def encoded_rows(sample: Sample, tokens: Tokens, limits: Limits) -> tuple[Array, Array]:
    """Return tokens of input and target: those of the cache, and of a text that an augmenter changed new ones."""
    known, source, target = sample["encoded"], sample["input"], sample["target"]
    if known is not None and known.input == source:
        ids = known.input_ids
    else:
        ids = np.asarray(input_ids(tokens, tokens.encode_one(source), limits.input))
    if target is None:
        return ids, np.zeros(0, np.int64)
    if known is not None and known.labels is not None and known.target == target:
        return ids, known.labels
    return ids, np.asarray(labels(tokens, tokens.encode_one(target), limits.target))


def batch_of(samples: Sequence[Sample], tokens: Tokens, limits: Limits, pad: int, start: int) -> dict[str, Any]:
    """Return the batch of samples.

    Args:
        samples: with the keys of `Corpus.sample`.
        tokens: for texts that were changed.
        limits: most tokens.
        pad: token that pads.
        start: token at which the decoder starts.

    Returns:
        input_ids and attention_mask [B, S], labels [B, T] (-100 pads), decoder_input_ids [B, T], int64; and the texts:
        inputs, references, and the templates in which was asked.
    """
    rows = [encoded_rows(sample, tokens, limits) for sample in samples]
    ids = padded([row for row, _ in rows], pad)
    lengths = torch.tensor([len(row) for row, _ in rows])
    targets = padded([row for _, row in rows], IGNORED_LABEL)
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long(),
        "labels": targets,
        "decoder_input_ids": shifted_right(targets, start, pad),
        "inputs": [sample["input"] for sample in samples],
        "references": [sample["target"] or "" for sample in samples],
        "templates": [sample["template"] for sample in samples],
    }

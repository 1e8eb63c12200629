"""Batches of samples of like length: less padding, in an order that is as random between batches as it was before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .randomness import Purpose, mixed

if TYPE_CHECKING:
    from torch import Tensor

SHUFFLE_OF_BATCHES = 1


def bucketed(samples: Tensor, lengths: Sequence[float], batch_size: int, buckets: int, seed: int, epoch: int) -> Tensor:
    """Return an order of an epoch's draws in which batches hold samples of like length.

    Draws that are already shuffled are sorted by length within chunks of `buckets` batches, and the batches are
    shuffled; the last one, where it is short, stays last. So a sample meets others of its length, never the same ones,
    and what is learned from in one step is of one length, which changes at random from step to step. A pure function
    of its arguments: a resumed epoch has the same batches.

    Args:
        samples: [N] the sample of each draw, in the order of drawing.
        lengths: of each sample of the data; any number that padding follows, as the count of its tokens.
        batch_size: draws of a batch.
        buckets: batches that are sorted together; below 2 nothing changes.
        seed: of the run.
        epoch: number of the epoch.

    Returns:
        [N] places of draws: `samples[order]` is the new order.

    Source: sorting within chunks of batches is customary; the shuffle of batches is a function of (seed, epoch) [ours].
    """
    count = len(samples)
    if buckets < 2 or count <= batch_size:
        return torch.arange(count)
    own = np.asarray(lengths)[samples.numpy()]
    chunk = buckets * batch_size
    # One sort for all chunks: by chunk first, by length then, by place where two are equal.
    order = np.lexsort((own, np.arange(count) // chunk))
    whole = count // batch_size
    generator = torch.Generator().manual_seed(mixed(seed, Purpose.ORDER, epoch, SHUFFLE_OF_BATCHES))
    shuffled = torch.from_numpy(order[: whole * batch_size]).view(whole, batch_size)
    shuffled = shuffled[torch.randperm(whole, generator=generator)]
    return torch.cat([shuffled.flatten(), torch.from_numpy(order[whole * batch_size :])])

"""Randomness as pure functions: a draw follows from the seed and from what it is for, never from what came before."""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Purpose(IntEnum):
    """Keep the streams of different uses apart."""

    MODEL = 1
    ORDER = 2
    VARIANT = 3
    STEP = 4
    SELECTION = 5
    EVALUATION = 6
    FOLD = 7
    NOISE = 8
    DRAW = 9


def mixed(seed: int, purpose: Purpose, *words: int) -> int:
    """Return 64 well-mixed bits of the seed, the purpose and the words."""
    packed = struct.pack(f"<{len(words) + 2}q", seed & 0x7FFF_FFFF_FFFF_FFFF, purpose, *words)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


def permutation(seed: int, epoch: int, length: int) -> Tensor:
    """Return the order of an epoch: a permutation of `length` draws, a function of (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(mixed(seed, Purpose.ORDER, epoch))
    return torch.randperm(length, generator=generator)


def variant_generator(seed: int, epoch: int, sample: int, variant: int) -> np.random.Generator:
    """Return the generator of one augmented sample, the same in whichever process asks."""
    import numpy as np

    low = mixed(seed, Purpose.VARIANT, epoch, sample, variant)
    return np.random.Generator(np.random.Philox(key=[low, low ^ 0x9E37_79B9_7F4A_7C15]))


def seed_torch(seed: int, purpose: Purpose, *words: int) -> None:
    """Set PyTorch's generators, so that dropout and sampling in a step depend on that step alone."""
    value = mixed(seed, purpose, *words)
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(value)

"""Words as numbers: one vocabulary for structures and layouts, built on the training split and frozen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

from .linear import CLOSE, END, OPEN

PAD, UNKNOWN, MASK = "<pad>", "<unk>", "<mask>"
PAD_ID, UNKNOWN_ID, END_ID = 0, 1, 2
SPECIAL = (PAD, UNKNOWN, END, OPEN, CLOSE)
MAX_NODES = 128
BUCKETS = 1024


class Vocabulary:
    """Number words: the special ones, the words of the training split in order, the pointers '@0' ..., MASK last.

    Args:
        words: the words found in training data.
        pointers: number of structure nodes that can be pointed to.
    """

    def __init__(self, words: Iterable[str], pointers: int = MAX_NODES) -> None:
        self.words = (*SPECIAL, *sorted(set(words) - set(SPECIAL)))
        self.pointers = pointers
        names = [*self.words, *(f"@{i}" for i in range(pointers)), MASK]
        self._names, self._ids = names, {name: i for i, name in enumerate(names)}

    def __len__(self) -> int:
        return len(self._names)

    def encode(self, words: Iterable[str]) -> list[int]:
        """Return the numbers of words; those never seen in training are UNKNOWN_ID."""
        return [self._ids.get(word, UNKNOWN_ID) for word in words]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Return the words of numbers, without padding and what lies outside the vocabulary."""
        return [self._names[i] for i in ids if PAD_ID < i < len(self._names)]

    def state_dict(self) -> dict[str, object]:
        """Return the vocabulary as JSON."""
        return {"words": list(self.words[len(SPECIAL) :]), "pointers": self.pointers}


def buckets(words: Sequence[str]) -> list[int]:
    """Return a number in [1, BUCKETS) for each word: classes never seen in training have an embedding, too."""
    return [1 + crc32(word.encode("utf-8", "surrogatepass")) % (BUCKETS - 1) for word in words]

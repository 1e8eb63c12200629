"""Words as numbers: the words of layouts and the tags of structures, built on the training split and frozen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

from .linear import CLOSE, END, OPEN

PAD, UNKNOWN, MASK = "<pad>", "<unk>", "<mask>"
PAD_ID, UNKNOWN_ID, END_ID, OPEN_ID, CLOSE_ID = range(5)
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


class Tags:
    """Number what structure nodes are made of: row 0 nothing, row 1 an unknown tag, the tags, then hashed classes.

    Classes share buckets, so that a class never seen in training has a row, too.

    Args:
        tags: the tags found in training data.
        rows: rows of the whole table; 0 for as many as 1,024 buckets need.
    """

    def __init__(self, tags: Iterable[str] = (), rows: int = 0) -> None:
        self.tags = tuple(sorted(set(tags)))
        self.first_bucket = 2 + len(self.tags)
        self.rows = rows or self.first_bucket + BUCKETS
        self._ids = {tag: 2 + i for i, tag in enumerate(self.tags)}

    @property
    def buckets(self) -> int:
        """Return the number of rows that classes share."""
        return self.rows - self.first_bucket

    def encode(self, tags: Iterable[str]) -> list[int]:
        """Return the rows of tags."""
        return [self._ids.get(tag, UNKNOWN_ID) for tag in tags]

    def hashed(self, words: Sequence[str]) -> list[int]:
        """Return the rows of classes and annotations."""
        return [self.first_bucket + crc32(word.encode("utf-8", "surrogatepass")) % self.buckets for word in words]

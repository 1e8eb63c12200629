"""Rows of numbers of any length in one flat array with their ends: in memory, or mapped from a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Flat:
    """Hold rows.

    Args:
        values: [sum of lengths] all rows, one after the other.
        ends: [N] int64, where each row ends.
    """

    values: Array
    ends: Array

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> Array:
        end = int(self.ends[row])
        begin = int(self.ends[row - 1]) if row else 0
        found: Array = self.values[begin:end]
        return found

    @property
    def lengths(self) -> Array:
        """Return [N] the length of each row."""
        return np.diff(self.ends, prepend=np.int64(0))

    def fits(self) -> bool:
        """Return whether the ends are ends of rows of the values."""
        if not len(self.ends):
            return not len(self.values)
        return bool(self.ends[0] >= 0 and (np.diff(self.ends) >= 0).all() and self.ends[-1] == len(self.values))


class Texts(Sequence[str]):
    """Be texts that are decoded as they are asked for, from bytes that may lie in a file.

    Args:
        flat: rows of UTF-8.
    """

    def __init__(self, flat: Flat) -> None:
        self.flat = flat

    def __len__(self) -> int:
        return len(self.flat)

    def __getitem__(self, index: Any) -> Any:
        return bytes(self.flat[index]).decode()

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

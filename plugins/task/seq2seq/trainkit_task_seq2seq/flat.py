"""Rows of numbers of any length in one flat array with their ends: in memory, or mapped from files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Chunks = Iterable[Sequence[Sequence[int]]]


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


def flat_of(chunks: Chunks, dtype: np.dtype[Any]) -> Flat:
    """Return rows, which come many at a time, as a flat array in memory."""
    values, lengths = [np.zeros(0, dtype)], [np.zeros(0, np.int64)]
    for rows in chunks:
        lengths.append(np.fromiter(map(len, rows), np.int64, len(rows)))
        values.append(np.fromiter(chain.from_iterable(rows), dtype, int(lengths[-1].sum())))
    return Flat(np.concatenate(values), np.concatenate(lengths).cumsum())


def write(chunks: Chunks, dtype: np.dtype[Any], folder: Path, name: str) -> None:
    """Write rows, which come many at a time, to files of a folder; only their ends stay in memory."""
    lengths = [np.zeros(0, np.int64)]
    with (folder / f"{name}.values").open("wb") as file:
        for rows in chunks:
            lengths.append(np.fromiter(map(len, rows), np.int64, len(rows)))
            np.fromiter(chain.from_iterable(rows), dtype, int(lengths[-1].sum())).tofile(file)
    np.concatenate(lengths).cumsum().tofile(folder / f"{name}.ends")


def mapped(folder: Path, name: str, dtype: np.dtype[Any]) -> Flat:
    """Return rows that `write` wrote, mapped from their files: they take memory only where they are looked at."""
    return Flat(_mapped(folder / f"{name}.values", dtype), _mapped(folder / f"{name}.ends", np.dtype(np.int64)))


def _mapped(path: Path, dtype: np.dtype[Any]) -> Array:
    # Nothing cannot be mapped. The class of mapped arrays makes each slice slow, and does nothing else.
    return np.asarray(np.memmap(path, dtype, "r")) if path.stat().st_size else np.zeros(0, dtype)

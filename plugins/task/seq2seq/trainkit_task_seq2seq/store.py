"""Where texts go while they are read: a list, or a file that is mapped afterwards."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .flat import Flat


class Spool(Sequence[str]):
    """Be texts in a file: what is appended is written, what is asked for is read; their ends stay in memory.

    Args:
        path: of a new file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("w+b")
        self.ends = array("q")
        self.end = 0
        self._flat: Flat | None = None

    def append(self, text: str, /) -> None:
        """Write a text."""
        data = text.encode()
        self.file.write(data)
        self.end += len(data)
        self.ends.append(self.end)
        self._flat = None

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: Any) -> Any:
        if self._flat is None:
            self.file.flush()
            values = np.memmap(self.path, np.uint8, "r") if self.end else np.zeros(0, np.uint8)
            self._flat = Flat(values, np.array(self.ends, np.int64))
        return bytes(self._flat[index]).decode()


TextSink = list[str] | Spool

"""Where texts go while they are read: a list, or a file that is mapped afterwards."""

from __future__ import annotations

import tempfile
import weakref
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .flat import Flat


class Spool(Sequence[str]):
    """Be texts in a file without a name: what is appended is written, what is asked for is read.

    Eight bytes of each text stay in memory. The file is gone with the process.

    Args:
        folder: on the disk of the file.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as the texts
        weakref.finalize(self, self.file.close)
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
            values = np.memmap(self.file, np.uint8, "r") if self.end else np.zeros(0, np.uint8)
            self._flat = Flat(values, np.array(self.ends, np.int64))
        return bytes(self._flat[index]).decode()


TextSink = list[str] | Spool

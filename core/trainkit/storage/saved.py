"""Read a checkpoint: its manifest, its tensors and documents, and whether they are what was written."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash
from torch import Tensor

from trainkit.errors import CheckpointError, printable

from . import manifest, strict_json, tensorfile
from .commit import MAX_DOCUMENT_BYTES
from .filesystem import map_file, read_file
from .together import together


def verified(path: Path, size: int, digest: str) -> mmap.mmap | None:
    """Return the content of a file, None for an empty one, if it is what a manifest says.

    Args:
        path: the file.
        size: in bytes.
        digest: xxh3_128 as hexadecimal digits.

    Raises:
        CheckpointError: the file is missing, irregular or changed; the message names it.
    """
    content = map_file(path)
    found = len(content) if content is not None else 0
    if found != size:
        why = f"it has {found:,} bytes, not {size:,}"
    elif xxhash.xxh3_128_hexdigest(content or b"") != digest:
        why = "its content is not what was written"
    else:
        return content
    raise CheckpointError("a checkpoint's file is damaged", where=str(path), why=why)


class Checkpoint:
    """Read a checkpoint. Everything in its folder is taken for data that anybody may have changed.

    Args:
        path: the folder.

    Raises:
        CheckpointError: it has no manifest that can be used.
    """

    def __init__(self, path: Path) -> None:
        found = manifest.Manifest.read(path)
        if path.name != f"checkpoint-{found.step}":
            raise CheckpointError("a checkpoint cannot be used", where=str(path), why=f"it is of step {found.step}")
        self.path, self.step, self.files, self.facts = path, found.step, found.files, found.facts
        self._verified: dict[str, mmap.mmap] = {}

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r})"

    def tensors(self, file: str) -> dict[str, Tensor]:
        """Return all tensors of a file, by name."""
        return tensorfile.read(self._member(file), self._verified.pop(file, None))

    def load_into(self, file: str, targets: Mapping[str, Tensor]) -> None:
        """Copy the tensors of a file into existing ones; every name, shape and element type must agree."""
        tensorfile.load_into(self._member(file), targets, self._verified.pop(file, None))

    def document(self, file: str) -> Any:
        """Return the value of a JSON file."""
        path = self._member(file)
        content = read_file(path, MAX_DOCUMENT_BYTES)
        try:
            return strict_json.loads(content)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                "a checkpoint's file is damaged", where=str(path), why=printable(str(error))
            ) from error

    def verify(self) -> None:
        """Compare every file with its size and hash in the manifest.

        Raises:
            CheckpointError: a file is missing, irregular or changed; the message names it.
        """
        together(self._verify_file, sorted(self.files, key=lambda name: -self.files[name][0]))

    def _verify_file(self, name: str) -> None:
        content = verified(self.path / name, *self.files[name])
        # What was hashed is what gets loaded, and its pages are mapped already.
        if content is not None and name.endswith(".safetensors"):
            self._verified[name] = content

    def _member(self, file: str) -> Path:
        if file not in self.files:
            why = f"it holds {', '.join(self.files)}"
            raise CheckpointError(f"the checkpoint has no {printable(file)}", where=str(self.path), why=why)
        return self.path / file

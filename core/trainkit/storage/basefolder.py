"""The folder of the model that an adapter was put on: written once, whole or not at all, and told by its SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from trainkit.errors import CheckpointError, printable

from . import strict_json, tensorfile
from .filesystem import SYSTEM, TEMPORARY, FileSystem, discard, map_file, read_file, remove_tree, write_file

WEIGHTS, RECORD = "model.safetensors", "base.json"
FORMAT = 1
MAX_RECORD_BYTES = 4096


def write_base(
    folder: Path, tensors: Mapping[str, Tensor], documents: Mapping[str, bytes], files: FileSystem = SYSTEM
) -> str:
    """Write a model into a new folder, durably, and return the SHA-256 of its weights.

    As with checkpoints the folder is in sight only when it is whole: see commit.py.

    Args:
        folder: must not exist.
        tensors: the weights; they must not change meanwhile.
        documents: further files by name.
        files: the file system.

    Raises:
        OSError: the system refused something; nothing of the attempt is left in sight.
    """
    temporary = folder.with_name(f"{TEMPORARY}{folder.name}")
    if temporary.exists():
        remove_tree(files, temporary)
    try:
        files.mkdir(temporary)
        hashed = hashlib.sha256()
        size, _ = tensorfile.write(temporary / WEIGHTS, tensors, files, hashed.update)
        for name, content in documents.items():
            write_file(files, temporary / name, [memoryview(content)])
        record = {"format": FORMAT, "size": size, "sha256": hashed.hexdigest()}
        write_file(files, temporary / RECORD, [memoryview(strict_json.dumps(record, indent=1))])
        files.fsync_folder(temporary)
        files.rename(temporary, folder)
    except BaseException:
        discard(files, temporary)
        raise
    files.fsync_folder(folder.parent)
    return hashed.hexdigest()


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 that weights have in a folder, without writing them."""
    hashed = hashlib.sha256()
    for part in tensorfile.content_of(tensors):
        hashed.update(part)
    return hashed.hexdigest()


def recorded_hash(folder: Path) -> str:
    """Return the SHA-256 that the weights of a folder had when they were written.

    Raises:
        CheckpointError: there is no such folder, or what it says of itself is damaged.
    """
    path = folder / RECORD
    content = read_file(path, MAX_RECORD_BYTES)
    try:
        record = strict_json.loads(content)
        if record["format"] != FORMAT or not isinstance(record["sha256"], str):
            raise ValueError(f"its format is {record['format']!r}; this version of trainkit reads {FORMAT}")
        return str(record["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError("a base model cannot be used", where=str(path), why=printable(str(error))) from error


def load_base(folder: Path, targets: Mapping[str, Tensor]) -> str:
    """Copy the weights of a folder into existing tensors and return their SHA-256.

    Raises:
        CheckpointError: they are not what was written, or names, shapes or element types differ.
    """
    expected, path = recorded_hash(folder), folder / WEIGHTS
    content = map_file(path)
    found = hashlib.sha256(content or b"").hexdigest()
    if found != expected:
        raise CheckpointError(
            "the base model of a run is damaged",
            where=str(path),
            why="its content is not what was written",
            do="put a copy back; the adapters of the run fit no other base",
        )
    tensorfile.load_into(path, targets, content)
    return found

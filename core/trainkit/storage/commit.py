"""Write a snapshot so that a crash at any moment leaves a whole checkpoint or none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainkit.errors import RunFailed, printable

from . import manifest, strict_json, tensorfile
from .filesystem import TEMPORARY, FileSystem, discard, write_file
from .together import copy_tensors

WEIGHT_FILES = ("model.safetensors", "adapter_model.safetensors")
MAX_DOCUMENT_BYTES = 256 * 2**20
PIECE = 2**15


@dataclass(frozen=True)
class Snapshot:
    """Hold what a checkpoint is to contain.

    Args:
        step: the optimizer step, which names the checkpoint.
        tensors: file name -> name -> tensor. They are read while they are saved, and not changed.
        documents: file name -> JSON value.
        facts: plain values for the manifest: epoch, offset of the metrics, hashes and versions.
        files: file name -> content, of files that other programs read.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    documents: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def rendered(documents: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the documents as the bytes of their files.

    Raises:
        RunFailed: a document is not JSON, or too large to be read again.
    """
    texts = {}
    for name, value in documents.items():
        try:
            texts[name] = strict_json.dumps(value, indent=1 if name == "config.json" else None)
        except (ValueError, TypeError, RecursionError) as error:
            raise RunFailed("a part of the run's state cannot be saved", where=name, why=str(error)) from error
        if len(texts[name]) > MAX_DOCUMENT_BYTES:
            raise RunFailed("a part of the run's state is too large for JSON", where=name, do="keep it as a tensor")
    return texts


def write_checkpoint(folder: Path, snapshot: Snapshot, documents: Mapping[str, bytes], files: FileSystem) -> Path:
    """Write a snapshot to folder/checkpoint-STEP and return that path once the checkpoint is durable.

    Make a temporary folder; write each file, hash it on the way and fsync it; write manifest.json last; fsync the
    folder; rename it; fsync its parent. Readers see nothing before the rename, and the fsyncs before it make sure that
    what they see then is whole.

    Raises:
        OSError: the system refused something; nothing of the attempt is left in sight.
    """
    temporary = _fresh(folder, snapshot.step, files)
    final = folder / f"checkpoint-{snapshot.step}"
    try:
        files.mkdir(temporary)
        written = {}
        for name, tensors in snapshot.tensors.items():
            written[name] = tensorfile.write(temporary / name, tensors, files)
        for name, text in documents.items():
            written[name] = write_file(files, temporary / name, [memoryview(text)])
        content = manifest.Manifest(snapshot.step, written, snapshot.facts).render()
        write_file(files, temporary / manifest.NAME, [memoryview(content)])
        files.fsync_folder(temporary)
        files.rename(temporary, final)
    except BaseException:
        discard(files, temporary)
        raise
    try:
        files.fsync_folder(folder)
    except OSError:
        # It is in sight but not certain to stay, so it must not count.
        files.rename(final, temporary)
        discard(files, temporary)
        raise
    return final


def size_of(snapshot: Snapshot, documents: Mapping[str, bytes]) -> int:
    """Return the bytes of the whole checkpoint, headers and manifest estimated."""
    count = sum(len(held) for held in snapshot.tensors.values())
    tensors = sum(tensorfile.nbytes(held) for held in snapshot.tensors.values())
    return tensors + sum(map(len, documents.values())) + 128 * count + 4096


def check_snapshot(snapshot: Snapshot) -> None:
    """Refuse weights that are not finite, which must not take the place of good ones, and names that are no file's.

    Raises:
        RunFailed: as said; the message names the weight.
    """
    for file in [*snapshot.tensors, *snapshot.documents, *snapshot.files]:
        if not manifest.is_file_name(file):
            raise RunFailed(f"'{printable(file)}' cannot be the name of a checkpoint's file")
    for file in WEIGHT_FILES:
        for name, tensor in snapshot.tensors.get(file, {}).items():
            if not is_finite(tensor):
                raise RunFailed(
                    "a weight is not finite; the checkpoint was not written",
                    where=f"{name}, at step {snapshot.step}",
                    why="training diverged, or a component wrote into the weights",
                    do="resume from the checkpoint before, with a lower optimizer.lr or --precision fp32",
                )


def is_finite(tensor: Tensor) -> bool:
    """Return whether every element is finite, in one pass and without a second tensor of that size."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or not tensor.numel():
        return True
    values = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
    if values.element_size() == 1:
        values = values.to(torch.float32)
    # The extremes of values with a NaN are NaN. A processor takes pieces too small for PyTorch's threads, which would
    # fight with those of training while this runs beside it.
    pieces = values.reshape(-1).split(PIECE if values.device.type == "cpu" else values.numel())
    extremes = torch.stack([extreme for piece in pieces for extreme in torch.aminmax(piece)])
    return bool(torch.isfinite(extremes).all())


class Buffers:
    """Keep the memory that tensors are copied into before a thread writes them: fresh pages cost more than the copy."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Tensor] = {}

    def hold(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Return copies in main memory, valid until the next call; tied tensors are tied in the copy too."""
        kept: dict[tuple[str, str], Tensor] = {}
        held: dict[str, dict[str, Tensor]] = {}
        pairs: list[tuple[Tensor, Tensor]] = []
        for file, named in tensors.items():
            copies: dict[tensorfile.Identity, Tensor] = {}
            held[file] = {}
            for name, tensor in named.items():
                identity = tensorfile.identity(tensor)
                if identity not in copies:
                    copies[identity] = kept[file, name] = self._buffer((file, name), tensor)
                    pairs.append((copies[identity], tensor))
                held[file][name] = copies[identity]
        copy_tensors(pairs)
        for device in {source.device for _, source in pairs if source.is_cuda}:
            torch.cuda.synchronize(device)
        self._kept = kept
        return held

    def _buffer(self, key: tuple[str, str], tensor: Tensor) -> Tensor:
        buffer = self._kept.get(key)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        return buffer


def _fresh(folder: Path, step: int, files: FileSystem) -> Path:
    """Return a name for a temporary folder that nothing bears yet; what a failed attempt left may resist removal."""
    names = set(files.listdir(folder))
    candidates = (f"{TEMPORARY}{step}-{os.getpid()}-{attempt}" for attempt in range(len(names) + 1))
    return folder / next(name for name in candidates if name not in names)

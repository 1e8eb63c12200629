"""Tensors in a file of the safetensors format, written and read without a copy of the whole.

Layout: 8 bytes with the length of the header, the header (JSON: name -> dtype, shape, place), then the bytes of the
tensors one after the other. Tensors of wide elements come first, so that each begins at a multiple of its element's
size. Tensors that are one (tied weights) are stored once; the metadata entry "trainkit.aliases" maps other names to it.
Source: https://github.com/huggingface/safetensors (format). The tests read and write the same files by that library;
this module fills tensors that exist in two thirds of its time, and says what is wrong with a file.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainkit.errors import CheckpointError, RunFailed, listed, printable

from . import strict_json
from .filesystem import SYSTEM, FileSystem, map_file, write_file
from .together import copy_tensors

ALIASES = "trainkit.aliases"
MAX_HEADER_BYTES = 16 * 2**20
MOST_TOLD = 5
CODES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
TYPES = {code: dtype for dtype, code in CODES.items()}
Identity = tuple[Any, ...]
Place = tuple[torch.dtype, tuple[int, ...], int, int]


def identity(tensor: Tensor) -> Identity:
    """Return what two tensors share exactly if they are the same view of the same memory."""
    # Tensors without elements share the address 0 and nothing else, so they are told apart by their object.
    address = tensor.data_ptr() or id(tensor)
    return (tensor.device, address, tensor.dtype, tensor.shape, tensor.stride())


def nbytes(tensors: Mapping[str, Tensor]) -> int:
    """Return how many bytes the tensors take in a file, tied ones counted once."""
    return sum({identity(t): t.numel() * t.element_size() for t in tensors.values()}.values())


def layout(tensors: Mapping[str, Tensor]) -> tuple[bytes, list[Tensor]]:
    """Return the head of the file (length and header) and the tensors in the order in which their bytes follow.

    Raises:
        RunFailed: a tensor has an element type or a layout that the format lacks.
    """
    stored: dict[Identity, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in CODES or tensor.layout is not torch.strided:
            raise RunFailed(
                "a tensor cannot be saved",
                where=name,
                why=f"the file format has no {tensor.dtype} {tensor.layout} tensors",
                do="convert it in state_dict",
            )
        first = stored.setdefault(identity(tensor), name)
        if first != name:
            aliases[name] = first
    metadata = {"format": "pt"}
    if aliases:
        metadata[ALIASES] = strict_json.dumps(aliases).decode()
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    order = sorted(stored.values(), key=lambda name: (-tensors[name].element_size(), name))
    for name in order:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = strict_json.dumps(header).rstrip()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise RunFailed("the tensors cannot be saved in one file", why=f"{len(order):,} tensors are too many")
    return struct.pack("<Q", len(text)) + text, [tensors[name] for name in order]


def content_of(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    """Return the content of the file that holds the tensors, part by part.

    Raises:
        RunFailed: a tensor cannot be stored; at once, before the first part is asked for.
    """
    head, ordered = layout(tensors)
    return chain([memoryview(head)], (_bytes_of(tensor) for tensor in ordered if tensor.numel()))


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    files: FileSystem = SYSTEM,
    heard: Callable[[memoryview], None] | None = None,
) -> tuple[int, str]:
    """Write the tensors to a new file and make its content durable; return its size and its xxh3_128 hash.

    Args:
        path: the file.
        tensors: what it is to hold, by name.
        files: the file system.
        heard: told of each part of the content, as by another hash.
    """
    parts = content_of(tensors)

    def told() -> Iterator[memoryview]:
        for part in parts:
            if heard is not None:
                heard(part)
            yield part

    return write_file(files, path, told())


def read(path: Path, content: mmap.mmap | None = None) -> dict[str, Tensor]:
    """Return all tensors of a file, by name, in memory of their own; tied ones are tied again.

    Args:
        path: the file.
        content: what it holds, if it is mapped already.

    Raises:
        CheckpointError: the file is missing, irregular or damaged.
    """
    views, aliases = _views(path, content)
    tensors = {name: torch.empty_like(view) for name, view in views.items()}
    copy_tensors((tensors[name], view) for name, view in views.items())
    return tensors | {name: tensors[first] for name, first in aliases.items()}


def load_into(path: Path, targets: Mapping[str, Tensor], content: mmap.mmap | None = None) -> None:
    """Copy the tensors of a file into existing ones, on any device. All are checked before the first is changed.

    Args:
        path: the file.
        targets: every tensor of the file by its name, with its shape and element type; no more and no fewer.
        content: what the file holds, if it is mapped already.

    Raises:
        CheckpointError: the file is damaged, or names, shapes or element types differ; the message names them.
    """
    views, aliases = _views(path, content)
    views |= {name: views[first] for name, first in aliases.items()}
    _check(path, views, targets)
    pairs = {identity(target): (target, views[name]) for name, target in targets.items()}
    copy_tensors(pairs.values())


def misfits(
    stored: Mapping[str, Tensor], targets: Mapping[str, Tensor], form: Callable[[Tensor], str], limit: int
) -> list[str]:
    """Return what keeps stored tensors from being copied into others: names that differ, and forms.

    Args:
        stored: by name.
        targets: the others, by name.
        form: what must be the same of two tensors, as text.
        limit: how many names a line tells.
    """
    faults = []
    if missing := sorted(targets.keys() - stored.keys()):
        faults.append(f"missing in the file: {listed(missing, limit)}")
    if unexpected := sorted(stored.keys() - targets.keys()):
        faults.append(f"unexpected in the file: {listed(unexpected, limit)}")
    unlike = [
        f"{name} is {form(stored[name])}, needed {form(targets[name])}"
        for name in sorted(stored.keys() & targets.keys())
        if form(stored[name]) != form(targets[name])
    ]
    if unlike:
        faults.append(f"other shapes: {listed(unlike, limit)}")
    return faults


def _check(path: Path, stored: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    if faults := misfits(stored, targets, _form, MOST_TOLD):
        fit = sum(name in stored and _form(stored[name]) == _form(target) for name, target in targets.items())
        raise CheckpointError(
            f"the saved tensors do not fit: {fit} of {len(targets)} do",
            where=str(path),
            why="\n".join(faults),
            do="use the components, options and versions that the checkpoint was written with",
        )


def _form(tensor: Tensor) -> str:
    return f"{CODES.get(tensor.dtype, str(tensor.dtype))}{list(tensor.shape)}"


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.is_conj() or flat.is_neg():
        flat = flat.resolve_conj().resolve_neg()
    return flat.view(torch.uint8).numpy().data


def _views(path: Path, content: mmap.mmap | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the stored tensors as views of the mapped file, and the aliases; every fault becomes a CheckpointError."""
    content = content or map_file(path)
    try:
        if content is None:
            raise ValueError("it is empty")
        header, start = _read_header(content)
        aliases = strict_json.loads(header.pop("__metadata__", {}).get(ALIASES, "{}"), max_depth=1)
        places = {name: _place(entry) for name, entry in header.items()}
        _check_places(places, len(content) - start)
        if not all(name not in places and first in places for name, first in aliases.items()):
            raise ValueError("its table of tied tensors is wrong")
        return {name: _view(content, start, *place) for name, place in places.items()}, aliases
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        why = str(error) if isinstance(error, ValueError) else "its header is not of the right form"
        raise CheckpointError("a tensor file is damaged", where=str(path), why=printable(why)[:300]) from error


def _read_header(content: mmap.mmap) -> tuple[dict[str, Any], int]:
    """Return the header and where the bytes of the tensors begin."""
    if len(content) < 8:
        raise ValueError("it is cut short")
    (length,) = struct.unpack("<Q", content[:8])
    if length > MAX_HEADER_BYTES:
        raise ValueError("its header is too large")
    if length > len(content) - 8:
        raise ValueError("it is cut short")
    return strict_json.loads(content[8 : 8 + length], max_depth=3), 8 + length


def _place(entry: dict[str, Any]) -> Place:
    """Return element type, shape, begin and end of a header's entry; raise ValueError if they contradict each other."""
    dtype = TYPES.get(entry["dtype"])
    shape = entry["shape"]
    begin, end = entry["data_offsets"]
    if dtype is None:
        raise ValueError(f"it has tensors of the unknown type {entry['dtype']!r}")
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError("a shape or a place in its header is not made of whole numbers")
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError("a shape in its header does not fit the place of its tensor")
    return dtype, tuple(shape), begin, end


def _check_places(places: Mapping[str, Place], size: int) -> None:
    """Refuse tensors that overlap or leave gaps: nothing may hide in a file, or be given out twice."""
    spans = sorted((begin, end) for _, _, begin, end in places.values())
    ends = [0, *(end for _, end in spans)]
    if ends[-1] != size:
        raise ValueError(f"it has {size:,} bytes of tensors, its header names {ends[-1]:,}")
    if any(end != begin for end, (begin, _) in zip(ends, spans, strict=False)):
        raise ValueError("its tensors overlap or leave gaps")


def _view(content: mmap.mmap, start: int, dtype: torch.dtype, shape: tuple[int, ...], begin: int, end: int) -> Tensor:
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    stored = torch.frombuffer(content, dtype=torch.uint8, offset=start + begin, count=end - begin)
    return stored.view(dtype).view(shape)

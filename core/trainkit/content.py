"""What a sample holds, as a hash: two samples of one content must not be trained and validated on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .answering import apart
from .contracts import Dataset, Sample

NAMES = frozenset({"id", "source"})
CHUNK = 256


class _Unknown(Exception):
    """A value of which it cannot be told what it holds."""


def content_hashes(dataset: Dataset) -> list[bytes | None]:
    """Return for each sample a hash of its content, None for one that holds what cannot be compared.

    The content is everything but the keys `id` and `source`, which say where a sample is from.
    """
    found: list[bytes | None] = []
    for first in range(0, len(dataset), CHUNK):
        indices = list(range(first, min(first + CHUNK, len(dataset))))
        items = dataset.__getitems__(indices)
        samples = apart(items, len(indices)) if isinstance(items, Mapping) else items
        found += [content_hash(sample) for sample in samples]
    return found


def content_hash(sample: Sample) -> bytes | None:
    """Return a hash of what a sample holds, or None if that cannot be told."""
    content = hashlib.blake2b(digest_size=16)
    try:
        for piece in _pieces({name: value for name, value in sample.items() if name not in NAMES}):
            content.update(len(piece).to_bytes(8, "little"))
            content.update(piece)
    except (_Unknown, RecursionError):
        return None
    return content.digest()


def _pieces(value: Any) -> Iterator[bytes]:
    """Yield what a value holds as bytes that differ where values do."""
    if value is None or isinstance(value, bool | int | float | str):
        yield f"{type(value).__name__} {value!r}".encode(errors="surrogatepass")
    elif isinstance(value, bytes):
        yield b"bytes"
        yield value
    elif isinstance(value, Mapping):
        yield b"{"
        for key in sorted(value, key=str):
            yield from _pieces(key)
            yield from _pieces(value[key])
        yield b"}"
    elif isinstance(value, Sequence):
        yield b"["
        for item in value:
            yield from _pieces(item)
        yield b"]"
    elif isinstance(value, np.ndarray | np.generic):
        yield from _array(np.asarray(value))
    elif isinstance(value, torch.Tensor):
        yield f"tensor {value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        raise _Unknown


def _array(array: np.ndarray[Any, Any]) -> Iterator[bytes]:
    if array.dtype.hasobject:
        yield from _pieces(array.tolist())
    else:
        yield f"array {array.dtype.str} {array.shape}".encode()
        yield np.ascontiguousarray(array).tobytes()

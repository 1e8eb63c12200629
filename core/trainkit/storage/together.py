"""Copy and hash much data fast, without PyTorch's own threads.

Those wait for each other by spinning. Where training, a background save and other processes share the cores, that made
the median copy of 300 MB 40 times slower than a plain loop; a few threads that share a list of pieces cost nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

PIECE_BYTES = 4 * 2**20
# PyTorch itself copies so few elements in the calling thread.
SMALL = 2**15
THREADS = min(4, os.cpu_count() or 1)
Bytes = np.ndarray[Any, Any]
Item = TypeVar("Item")
Result = TypeVar("Result")


def together(function: Callable[[Item], Result], items: Sequence[Item], threads: int = THREADS) -> list[Result]:
    """Return the function's results in the order of the items, computed by a few threads; raise what one raised.

    Args:
        function: lets other threads run meanwhile, as NumPy's copies and xxhash's hashes do.
        items: what it is called with.
        threads: the most threads, this one among them.
    """
    results: dict[int, Result] = {}
    errors: list[Exception] = []
    # The iterator of a list hands every item to exactly one thread.
    left = iter(list(enumerate(items)))

    def work() -> None:
        for place, item in left:
            try:
                results[place] = function(item)
            except Exception as error:  # raised below, by the thread that asked
                errors.append(error)

    helpers = [threading.Thread(target=work) for _ in range(min(threads, len(items)) - 1)]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
    return [results[place] for place in range(len(items))]


def copy_tensors(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Copy each source into its target.

    Args:
        pairs: (target, source), of the same shape and element type, on any devices. Copies from a GPU into pinned
            memory do not wait: synchronise before reading.
    """
    pieces: list[tuple[Bytes, Bytes]] = []
    for target, source in pairs:
        target, source = target.detach(), source.detach()
        if source.numel() > SMALL and _is_plain(target) and _is_plain(source):
            pieces += _pieces(_bytes(target), _bytes(source))
        else:
            target.copy_(source, non_blocking=target.is_pinned())
    total = sum(len(source) for _, source in pieces)
    together(lambda piece: np.copyto(*piece), pieces, max(1, min(THREADS, total // PIECE_BYTES)))


def _is_plain(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg())


def _bytes(tensor: Tensor) -> Bytes:
    return tensor.view(-1).view(torch.uint8).numpy() if tensor.numel() else np.empty(0, np.uint8)


def _pieces(target: Bytes, source: Bytes) -> Iterator[tuple[Bytes, Bytes]]:
    for start in range(0, len(source), PIECE_BYTES):
        yield target[start : start + PIECE_BYTES], source[start : start + PIECE_BYTES]

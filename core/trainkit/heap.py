"""Memory that stays with the process: the C library keeps what is freed instead of giving it back."""

from __future__ import annotations

import ctypes
import platform
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
LARGEST_FROM_HEAP = 32 * 2**20
KEPT = 2**31 - 1
PADDING = 64 * 2**20


def keep_heap() -> bool:
    """Let glibc keep freed memory for what is allocated next; return whether it does.

    By default a temporary of some hundred kilobytes may come from fresh pages each time: they are faulted in and
    zeroed by the kernel when it is written, and given back when it is freed. Here blocks of up to 32 MiB, the most that
    glibc allows, come from the heap, and the heap is not cut at its end. That holds until the process ends. Where the C
    library is another one, as on macOS, Windows and Alpine, nothing is done, and nothing breaks.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return all(
        [
            mallopt(M_MMAP_THRESHOLD, LARGEST_FROM_HEAP) == 1,
            mallopt(M_TRIM_THRESHOLD, KEPT) == 1,
            mallopt(M_TOP_PAD, PADDING) == 1,
        ]
    )

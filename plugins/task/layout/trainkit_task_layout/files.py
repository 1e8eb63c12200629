"""Read files of a data folder without trusting them: regular files only, none outside the folder, none too large."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

MAX_BYTES = 64 * 2**20
T = TypeVar("T")


class Fault(Exception):
    """Say why a file, and so its sample, cannot be used: the rule that it breaks, in a word or two, and the reason."""

    def __init__(self, path: Path, reason: str, rule: str = "file") -> None:
        super().__init__(reason)
        self.path, self.reason, self.rule = path, reason, rule


class BadSample(Exception):
    """Hold all faults that were found in one sample."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(fault.reason for fault in faults))
        self.faults = tuple(faults)


class Attempts:
    """Try all parts of a sample before giving it up, so that a user hears of all its faults at once."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def __call__(self, read: Callable[..., T], *args: Any) -> T | None:
        """Return what a reader returns, or None after a fault, which is kept."""
        try:
            return read(*args)
        except Fault as fault:
            self.faults.append(fault)
            return None

    def settle(self) -> None:
        """Raise BadSample if anything failed."""
        if self.faults:
            raise BadSample(self.faults)


def read_bytes(path: Path, root: Path) -> bytes:
    """Return the content of a regular file inside `root`; raise Fault with the reason."""
    try:
        target = path.resolve(strict=True)
        status = target.stat()
        if not target.is_relative_to(root):
            raise Fault(path, "a link that leads out of the data folder")
        if not stat.S_ISREG(status.st_mode):
            raise Fault(path, "not a regular file")
        if status.st_size > MAX_BYTES:
            raise Fault(path, f"{status.st_size / 2**20:.0f} MiB; at most {MAX_BYTES // 2**20} MiB are read")
        return target.read_bytes()
    except FileNotFoundError:
        raise Fault(path, "missing") from None
    # Path.resolve tells of a loop of links by RuntimeError before Python 3.13; ValueError: a NUL in a name.
    except (OSError, RuntimeError, ValueError) as error:
        raise Fault(path, getattr(error, "strerror", None) or "a loop of links, or a name that cannot be") from None


def read_text(path: Path, root: Path) -> str:
    """Return the content of a UTF-8 file inside `root`; raise Fault with the reason."""
    try:
        return read_bytes(path, root).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Fault(path, f"not UTF-8 (byte {error.start})") from None


def content_hash(content: bytes) -> str:
    """Return a hash of a file's content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()

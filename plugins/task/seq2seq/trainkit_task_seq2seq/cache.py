"""A folder of folders, each made once and whole: under a key of what it was made of, with a hash of every file."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import xxhash
from trainkit.loader.health import home

MANIFEST = "manifest.json"
MOST_BYTES = 20 * 2**30
AT_ONCE = 1 << 22
_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return where tokens and tokenizers are kept: in $TRAINKIT_HOME, or `trainkit` in the user's cache folder."""
    return Path(home()) / "text"


class Cache:
    """Keep folders under keys.

    A folder appears under its key only when it is whole; one that is damaged is made anew. Above 20 GiB those that were
    not asked for the longest time are removed. A cache that cannot be written is told once, and does nothing.

    Args:
        root: where they are.
        most_bytes: of all folders together.
    """

    def __init__(self, root: Path, most_bytes: int = MOST_BYTES) -> None:
        self.root, self.most_bytes = root, most_bytes

    def folder(self, key: str, make: Callable[[Path], None]) -> Path | None:
        """Return the folder of a key; None where it can be neither read nor written.

        Args:
            key: stands for everything that the content follows from.
            make: fills an empty folder.
        """
        path = self.root / key
        if path.is_dir():
            if is_whole(path):
                os.utime(path)
                return path
            _log.warning("the cache %s is damaged: it is made anew", path)
            shutil.rmtree(path, ignore_errors=True)
        try:
            self._make(path, make)
        except OSError as error:
            _log.warning("nothing is kept in the cache %s: %s", self.root, error.strerror or error)
            return None
        self._prune(path)
        return path

    def _make(self, path: Path, make: Callable[[Path], None]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix="new-", dir=self.root))
        try:
            make(new)
            hashes = {each.name: [each.stat().st_size, hash_of(each)] for each in sorted(new.iterdir())}
            (new / MANIFEST).write_text(json.dumps(hashes), encoding="utf-8")
            # Another process may have been faster: its folder holds the same.
            with contextlib.suppress(FileExistsError):
                _renamed(new, path)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _prune(self, kept: Path) -> None:
        folders = [each for each in self.root.iterdir() if each.is_dir() and each != kept]
        sizes = {each: sum(file.stat().st_size for file in each.iterdir()) for each in [*folders, kept]}
        total = sum(sizes.values())
        for folder in sorted(folders, key=lambda each: each.stat().st_mtime):
            if total <= self.most_bytes:
                return
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]


def _renamed(new: Path, path: Path) -> None:
    try:
        new.rename(path)
    except OSError:
        if not path.is_dir():
            raise
        raise FileExistsError(path) from None


def is_whole(folder: Path) -> bool:
    """Return whether every file of a folder is what its manifest says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest) and all(
            (folder / name).stat().st_size == size and hash_of(folder / name) == content
            for name, (size, content) in manifest.items()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def hash_of(path: Path) -> str:
    """Return the xxh3_128 hash of a file."""
    content = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(AT_ONCE):
            content.update(chunk)
    return content.hexdigest()

"""The few file-system calls that durable writing is made of, as an object, so that a test can record or fail each."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import xxhash

from trainkit.errors import CheckpointError, ResourceError, TrainkitError

CHUNK_BYTES = 4 * 2**20
TEMPORARY = ".tmp-"


class FileSystem:
    """Call the operating system. Everything a checkpoint or a record is written with goes through here."""

    def mkdir(self, path: Path) -> None:
        path.mkdir()

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def write(self, descriptor: int, data: memoryview) -> int:
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def fsync_folder(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def rmdir(self, path: Path) -> None:
        path.rmdir()

    def listdir(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))

    def free_bytes(self, path: Path) -> int:
        return shutil.disk_usage(path).free


SYSTEM = FileSystem()


def write_all(files: FileSystem, descriptor: int, data: memoryview, digest: Callable[[memoryview], None]) -> None:
    """Write all of the bytes, hashing each piece while it is in the processor's cache.

    A write may take less than it was given without an error (a file-size limit, a full disk): what is left is offered
    again, and the second refusal is an error.
    """
    for start in range(0, len(data), CHUNK_BYTES):
        piece = data[start : start + CHUNK_BYTES]
        digest(piece)
        while len(piece):
            written = files.write(descriptor, piece)
            if written <= 0:
                raise OSError(errno.EIO, "the operating system wrote nothing")
            piece = piece[written:]


def write_file(files: FileSystem, path: Path, parts: Iterable[memoryview]) -> tuple[int, str]:
    """Write a new file and make its content durable, not yet its entry; return its size and its xxh3_128 hash."""
    digest, size = xxhash.xxh3_128(), 0
    descriptor = files.create(path)
    try:
        for part in parts:
            write_all(files, descriptor, part, digest.update)
            size += len(part)
        files.fsync(descriptor)
    finally:
        files.close(descriptor)
    return size, digest.hexdigest()


def replace_file(files: FileSystem, path: Path, content: bytes) -> None:
    """Put a file in place of an older one, so that a crash at any moment leaves one of the two, whole."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    if temporary.exists():
        # Left by a killed process that had the same number.
        files.unlink(temporary)
    try:
        write_file(files, temporary, [memoryview(content)])
        files.rename(temporary, path)
    except OSError:
        discard(files, temporary)
        raise
    files.fsync_folder(path.parent)


def remove_tree(files: FileSystem, path: Path) -> None:
    """Remove a file or a folder with all it holds; links are removed, not followed."""
    if path.is_dir() and not path.is_symlink():
        for name in files.listdir(path):
            remove_tree(files, path / name)
        files.rmdir(path)
    else:
        files.unlink(path)


def discard(files: FileSystem, path: Path) -> None:
    """Remove what a failed attempt left, if that is possible; the failure itself is what gets reported."""
    try:
        remove_tree(files, path)
    except OSError:
        pass


def open_regular(path: Path) -> int:
    """Open a file for reading; refuse links, pipes and devices without waiting for them.

    Raises:
        CheckpointError: it is not there, is no regular file, or may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        why = "it is a link" if isinstance(error, OSError) and error.errno == errno.ELOOP else reason(error)
        raise CheckpointError("a file cannot be read", where=str(path), why=why) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckpointError("a file cannot be read", where=str(path), why="it is not a regular file")
    return descriptor


def read_file(path: Path, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Raises:
        CheckpointError: the file is missing, irregular or too large.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        try:
            content = file.read(limit + 1)
        except OSError as error:
            raise CheckpointError("a file cannot be read", where=str(path), why=reason(error)) from error
    if len(content) > limit:
        raise CheckpointError("a file is too large", where=str(path), why=f"more than {limit:,} bytes")
    return content


def map_file(path: Path) -> mmap.mmap | None:
    """Return the content of a regular file as a mapping that reads no byte before it is looked at; None if it is empty.

    The mapping is private and nothing writes to it; PyTorch refuses to look at memory that may not be written.

    Raises:
        CheckpointError: the file is missing or irregular.
    """
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY) if size else None
    except OSError as error:
        raise CheckpointError("a file cannot be read", where=str(path), why=reason(error)) from error
    finally:
        os.close(descriptor)


def reason(error: Exception) -> str:
    """Return what went wrong, in the operating system's words and without its numbers."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def size_text(count: int) -> str:
    """Return a number of bytes as people say it: 1.5 GB."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def disk_error(error: OSError, path: Path, files: FileSystem = SYSTEM, needed: int | None = None) -> TrainkitError:
    """Build the answer to a write that the system refused: where, what was needed, what is free, what to do."""
    facts: dict[str, Any] = {}
    try:
        facts["free"] = size_text(files.free_bytes(path if path.is_dir() else path.parent))
    except OSError:
        pass
    if needed is not None:
        facts["needed"] = size_text(needed)
    why = ", ".join([reason(error), *(f"{name}: {amount}" for name, amount in sorted(facts.items(), reverse=True))])
    remedies = {
        errno.ENOSPC: "free space on this disk",
        errno.EDQUOT: "free some of your quota",
        errno.EROFS: "make the file system writable",
        errno.EACCES: "make the folder writable",
        errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
        errno.EMFILE: "raise the limit on open files (ulimit -n)",
        errno.ENOENT: "put the folder back; it was moved or removed while the run wrote to it",
    }
    remedy = remedies.get(error.errno or 0, "check the disk")
    do = f"{remedy}; a run that has begun goes on from its last checkpoint with --resume"
    return ResourceError("a file cannot be written", where=str(path), why=why, do=do)

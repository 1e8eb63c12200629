"""The run directory: the folder that records a run. One process writes to it, and none ever writes over another's."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import socket
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import CheckpointError, ResourceError, UsageError, printable
from .storage import strict_json
from .storage.filesystem import SYSTEM, TEMPORARY, disk_error, read_file, reason, remove_tree, replace_file
from .storage.metricsfile import MetricsFile, rows

__all__ = ["MetricsFile", "RunDirectory", "rows"]

LOCK = "run.lock"
STATUS = "status.json"
METRICS = "metrics.jsonl"
MAX_RECORD_BYTES = 64 * 2**20


class RunDirectory:
    """Hold a run's folder; made by `create`, `open` or `read`.

    Args:
        path: the folder.
        lock: the file descriptor of its lock, or None for reading only.
        writes: False for a rank that leaves all writing to another one.
    """

    def __init__(self, path: Path, lock: int | None = None, *, writes: bool = True) -> None:
        self.path, self._writes = path, writes
        self.checkpoints = path / "checkpoints"
        self.metrics_path = path / METRICS
        self._lock = lock
        if lock is not None:
            # A lock lives as long as any process has it open: a loader's process that outlives a killed run must not.
            held = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _forget_lock(held))

    @classmethod
    def create(cls, out: Path | None, name: str) -> RunDirectory:
        """Make a new run directory and lock it.

        Args:
            out: where; if None, a folder under runs/ with name, time (UTC) and four random digits.
            name: of the run.

        Raises:
            UsageError: `out` is not empty, or is no folder.
            ResourceError: the system refuses to write there.
        """
        try:
            path = _new_folder(name) if out is None else _empty_folder(out)
            SYSTEM.fsync_folder(path.parent)
            directory = cls(path, _locked(path))
            directory.status("new")
        except OSError as error:
            raise disk_error(error, out or Path("runs").absolute()) from error
        return directory

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open and lock an existing run directory, to go on with its run.

        Raises:
            CheckpointError: it is not a run directory.
            UsageError: another process has it.
            ResourceError: the system refuses to write there.
        """
        _check_is_run(path)
        try:
            directory = cls(path, _locked(path))
            for name in SYSTEM.listdir(path):
                if name.startswith(TEMPORARY):
                    # Left by a killed process; the lock says that nobody is writing it now.
                    remove_tree(SYSTEM, path / name)
            return directory
        except OSError as error:
            raise disk_error(error, path / LOCK) from error

    @classmethod
    def read(cls, path: Path) -> RunDirectory:
        """Open an existing run directory for reading, whether or not another process has it.

        Raises:
            CheckpointError: it is not a run directory.
        """
        _check_is_run(path)
        return cls(path)

    def write_text(self, name: str, text: str) -> None:
        """Write a file as UTF-8, durably, in place of an older one.

        Raises:
            ResourceError: the system refuses to write.
        """
        self._write(name, text.encode("utf-8", errors="replace"))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file as `write_text` does, as it is."""
        self._write(name, content)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file as `write_text` does; numbers that are not finite become "nan", "inf" and "-inf"."""
        self._write(name, strict_json.dumps(strict_json.without_special_numbers(value), indent=1))

    def read_json(self, name: str) -> Any:
        """Return the value of a JSON file.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        path = self._inside(name)
        content = read_file(path, MAX_RECORD_BYTES)
        try:
            return strict_json.loads(content)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                "a file of the run directory is damaged", where=str(path), why=printable(str(error))
            ) from error

    def status(
        self,
        state: str,
        *,
        reason: str = "",
        step: int | None = None,
        best: float | None = None,
        exit_code: int | None = None,
    ) -> None:
        """Write status.json.

        Args:
            state: new, running, done, stopped, interrupted or failed.
            reason: why it ended.
            step: the optimizer step reached.
            best: the best monitored value.
            exit_code: of the process.
        """
        facts = {"state": state, "reason": reason, "step": step, "best": best, "exit_code": exit_code}
        self.write_json(STATUS, facts | {"updated": datetime.now(UTC).isoformat(timespec="seconds")})

    def close(self) -> None:
        """Give the lock back. The lock's file stays: removing it would let two processes lock two files."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write(self, name: str, content: bytes) -> None:
        path = self._inside(name)
        if not self._writes:
            return
        try:
            replace_file(SYSTEM, path, content)
        except OSError as error:
            raise disk_error(error, path, SYSTEM, len(content)) from error

    def _inside(self, name: str) -> Path:
        if Path(name).name != name or name in ("", ".", ".."):
            raise ValueError(f"{name!r} is not a plain file name")
        return self.path / name


def _new_folder(name: str) -> Path:
    runs = Path("runs")
    runs.mkdir(exist_ok=True)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "run"
    while True:
        path = runs / f"{stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path


def _empty_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise UsageError(
                "the run directory is no folder", where=str(path), do="choose another one by --out"
            ) from None
        if any(path.iterdir()):
            do = "choose another one by --out"
            if (path / STATUS).is_file():
                do = f"go on with that run by --resume {path}, or {do}"
            raise UsageError("the run directory is not empty", where=str(path), do=do) from None
    return path


def _check_is_run(path: Path) -> None:
    if not (path / STATUS).is_file():
        why = "it holds no status.json" if path.is_dir() else "there is no such folder"
        do = "name the folder that 'trainkit run' made, as in runs/NAME-TIME-DIGITS"
        raise CheckpointError("this is not a run directory", where=str(path), why=why, do=do)


def _locked(path: Path) -> int:
    """Lock a run directory for this process and return the lock's file descriptor.

    Raises:
        UsageError: another process holds the lock.
        ResourceError: the file system has no locks.
    """
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder = {"pid": os.getpid(), "host": socket.gethostname()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, strict_json.dumps(holder), 0)
    except OSError as error:
        who = _holder(descriptor)
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise UsageError(
                "another process is using this run directory",
                where=str(path),
                why=who,
                do="wait until it ends, or stop it; then try again",
            ) from None
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise ResourceError(
                "the run directory cannot be locked",
                where=str(path),
                why=reason(error),
                do="choose a folder on a local disk by --out",
            ) from error
        raise
    return descriptor


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {int(holder['pid'])} on {printable(str(holder['host']))[:255]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its number is not known"


def _forget_lock(held: weakref.ref[RunDirectory]) -> None:
    directory = held()
    if directory is not None:
        directory.close()

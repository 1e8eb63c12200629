"""metrics.jsonl: one JSON object a line, appended to, and cut back when a run resumes from an earlier point."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainkit.errors import CheckpointError, printable

from . import strict_json
from .filesystem import SYSTEM, disk_error, open_regular, reason, write_all

MAX_LINE_BYTES = 8 * 2**20
_BLOCK = 2**16


class MetricsFile:
    """Append rows to a file. Every row goes to the operating system at once, so a killed process loses none.

    Args:
        path: the file; made if it is not there. A last line that a crash cut short is removed.

    Raises:
        ResourceError: the system refuses to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise disk_error(error, path) from error
        self._offset = os.fstat(self._descriptor).st_size
        self.truncate(self._offset)

    @property
    def offset(self) -> int:
        """Return the length of the file in bytes; a checkpoint notes it."""
        return self._offset

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a row; numbers that are not finite become the strings "nan", "inf" and "-inf".

        Raises:
            ResourceError: the disk is full or broken.
        """
        line = strict_json.dumps(strict_json.without_special_numbers(row))
        try:
            write_all(SYSTEM, self._descriptor, memoryview(line), _no_digest)
        except OSError as error:
            raise disk_error(error, self.path) from error
        self._offset += len(line)

    def sync(self) -> None:
        """Make all rows durable, against a power cut too."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise disk_error(error, self.path) from error

    def truncate(self, offset: int) -> int:
        """Cut the file back to the rows that end at or before `offset`.

        Returns:
            How many bytes of these rows are missing, as after a power cut: 0 unless rows were lost.
        """
        try:
            end = self._end_of_line(min(offset, self._offset))
            if end < self._offset:
                os.ftruncate(self._descriptor, end)
        except OSError as error:
            raise disk_error(error, self.path) from error
        self._offset = end
        return offset - end

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _end_of_line(self, offset: int) -> int:
        while offset:
            start = max(0, offset - _BLOCK)
            found = os.pread(self._descriptor, offset - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            offset = start
        return 0


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file in order; a last line that was cut short is left out.

    Raises:
        CheckpointError: the file cannot be read, or a line before the last is damaged; the message has its number.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        number = 0
        while line := _line(path, file):
            number += 1
            if not line.endswith(b"\n"):
                if len(line) > MAX_LINE_BYTES:
                    raise CheckpointError("a row is too long", where=f"{path}, line {number}")
                return
            try:
                row = strict_json.loads(line, max_depth=strict_json.MAX_DEPTH)
                if not isinstance(row, dict):
                    raise ValueError("it is not an object")
            except ValueError as error:
                raise CheckpointError(
                    "a row is damaged", where=f"{path}, line {number}", why=printable(str(error))
                ) from error
            yield {
                key: strict_json.SPECIAL_NUMBERS.get(value, value) if isinstance(value, str) else value
                for key, value in row.items()
            }


def _line(path: Path, file: Any) -> bytes:
    try:
        line: bytes = file.readline(MAX_LINE_BYTES + 1)
    except OSError as error:
        raise CheckpointError("a file cannot be read", where=str(path), why=reason(error)) from error
    return line


def _no_digest(piece: memoryview) -> None:
    """Take a piece and hash nothing: rows are not hashed."""

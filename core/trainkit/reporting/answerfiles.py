"""Answers as files in a folder of their own; nothing that is there is ever written over."""

from __future__ import annotations

import re
from pathlib import Path

from trainkit.contracts import Answer
from trainkit.errors import UsageError
from trainkit.storage.filesystem import disk_error

MAX_NAME = 120


class Names:
    """Make file names of the names of inputs: plain, and each only once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def __call__(self, name: str) -> str:
        """Return the file name of the next input."""
        plain = free = plain_name(name)
        number = 1
        # Some file systems do not tell upper from lower case.
        while free.casefold() in self._taken:
            number += 1
            free = f"{plain}-{number}"
        self._taken.add(free.casefold())
        return free


class AnswerFiles:
    """Write the files of answers, each answer under a name of its own.

    Args:
        folder: where they go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names = Names()

    def write(self, answer: Answer) -> tuple[Path, ...]:
        """Write the files of an answer and return their paths."""
        stem = self._names(answer.name)
        return tuple(
            write_new(self.folder / (stem + re.sub(r"[^\w.-]+", "-", suffix)), content)
            for suffix, content in answer.files.items()
        )


def plain_name(name: str) -> str:
    """Return a name that is safe as that of a file: letters, digits, dots, hyphens; no dot at its beginning."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-")[:MAX_NAME] or "answer"


def write_new(path: Path, content: str | bytes) -> Path:
    """Write a new file and return its path.

    Raises:
        UsageError: there is one already.
        ResourceError: the system refuses to write.
    """
    try:
        with path.open("xb") as file:
            file.write(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
    except FileExistsError:
        raise UsageError("a file is there already", where=str(path), do="choose another folder by --out") from None
    except OSError as error:
        raise disk_error(error, path) from error
    return path


def numbered_folder(parent: Path) -> Path:
    """Make the next folder below another one, named 1, 2, 3, and return it."""
    try:
        parent.mkdir(exist_ok=True)
        numbers = [int(path.name) for path in parent.iterdir() if re.fullmatch(r"[0-9]{1,9}", path.name)]
        number = max(numbers, default=0) + 1
        while True:
            try:
                (parent / str(number)).mkdir()
                return parent / str(number)
            except FileExistsError:
                number += 1
    except OSError as error:
        raise disk_error(error, parent) from error


def empty_folder(path: Path) -> Path:
    """Make a folder, or find an empty one, and return it; raise UsageError for one that holds something."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        filled = any(path.iterdir())
    except (FileExistsError, NotADirectoryError):
        raise UsageError("the place for output is no folder", where=str(path), do="choose another by --out") from None
    except OSError as error:
        raise disk_error(error, path) from error
    if filled:
        why = "nothing is ever written over what is there"
        raise UsageError("the folder for output is not empty", where=str(path), why=why, do="choose another by --out")
    return path

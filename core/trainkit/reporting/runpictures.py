"""The pictures of a run: kept below samples/ in its directory, the newest of them shown in its report."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from trainkit.errors import printable
from trainkit.storage.filesystem import disk_error

from .contactsheet import Picture, png

FOLDER, FINAL_FOLDER = "samples", "final"
MOST_SHOWN, MOST_BYTES = 16, 8_000_000
STEP = re.compile(r"step-(\d+)")

Shown = Sequence[tuple[str, bytes]]


def step_folder(step: int) -> str:
    """Return the name of the folder of what was shown at an optimizer step."""
    return f"step-{step:06d}"


def keep_pictures(directory: Path, pictures: Mapping[str, Picture], folder: str = "") -> None:
    """Write pictures as PNG files below samples/ of a run directory.

    Args:
        directory: the run directory.
        pictures: [H, W, 3] of bytes, by plain file name without suffix.
        folder: where below samples/: `step_folder(step)`, or FINAL_FOLDER for what the best weights answer.

    Raises:
        ResourceError: the system refuses to write.
    """
    keep_files(directory, ((f"{name}.png", png(picture)) for name, picture in pictures.items()), folder)


def keep_files(directory: Path, files: Iterable[tuple[str, bytes]], folder: str) -> None:
    """Write files, (name, content), below samples/ of a run directory; raise ResourceError where that is refused."""
    path = directory / FOLDER / folder
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name, content in files:
            (path / name).write_bytes(content)
    except OSError as error:
        raise disk_error(error, path) from error


def newest_pictures(directory: Path) -> Shown:
    """Return the pictures for a report as (title, PNG) pairs: those of the whole run, then those of its newest answers.

    The newest are the final ones, else those of the newest step. At most 16 of them, at most 8 MB together; what cannot
    be read is left out.
    """
    shown, size = [], 0
    for title, path in newest_files(directory, ".png")[:MOST_SHOWN]:
        try:
            content = path.read_bytes() if path.stat().st_size <= MOST_BYTES - size else b""
        except OSError:
            continue
        if content:
            shown.append((title, content))
            size += len(content)
    return shown


def newest_files(directory: Path, suffix: str) -> list[tuple[str, Path]]:
    """Return (title, path) pairs of files below samples/: those of the whole run, then those of its newest answers."""
    folder = directory / FOLDER
    steps = {int(match[1]): path for path in folder.glob("step-*") if (match := STEP.fullmatch(path.name))}
    files = [(path.stem, path) for path in sorted(folder.glob(f"*{suffix}"))]
    final = [(f"{path.stem}, best weights", path) for path in sorted((folder / FINAL_FOLDER).glob(f"*{suffix}"))]
    if final or not steps:
        return files + final
    newest = max(steps)
    return files + [(f"{path.stem}, step {newest}", path) for path in sorted(steps[newest].glob(f"*{suffix}"))]


def range_test_picture(directory: Path) -> Shown:
    """Return the plot of a run's learning-rate range test as a (title, PNG) pair; nothing where there is none."""
    path = directory / "lr_find.png"
    try:
        return [("learning-rate range test", path.read_bytes())] if path.stat().st_size <= MOST_BYTES else []
    except OSError:
        return []


def figures(pictures: Shown) -> str:
    """Return pictures as HTML that holds them, or '' where there are none."""
    return "".join(
        f"<figure><h3>{_text(title)}</h3>"
        f'<img alt="{_text(title)}" src="data:image/png;base64,{b64encode(content).decode()}"></figure>'
        for title, content in pictures
    )


def _text(value: str) -> str:
    return escape(printable(value))

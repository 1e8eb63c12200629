"""The texts of a run: answers kept below samples/ in its directory, the newest of them shown in its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from trainkit.contracts import Answer
from trainkit.errors import printable

from .runpictures import keep_files, newest_files

MOST_SHOWN, MOST_CHARACTERS = 16, 20_000


def is_text(answer: Answer) -> bool:
    """Return whether an answer and all there is to see of it is text."""
    return bool(answer.text or answer.panels) and all(isinstance(panel.content, str) for panel in answer.panels)


def text_of(answer: Answer) -> str:
    """Return an answer for people: what was given, the answer, then whatever else there is, as the truth.

    Args:
        answer: its panels are texts.
    """
    parts = [(panel.title, str(panel.content)) for panel in answer.panels]
    if answer.text:
        others = [part for part in parts[1:] if part[1] != answer.text]
        parts = [*parts[:1], ("answer", answer.text), *others]
    return "\n\n".join(f"{title}: {content.strip()}" for title, content in parts) + "\n"


def keep_texts(directory: Path, texts: Mapping[str, str], folder: str = "") -> None:
    """Write texts as files below samples/ of a run directory.

    Args:
        directory: the run directory.
        texts: by plain file name without suffix.
        folder: where below samples/: as for `keep_pictures`.

    Raises:
        ResourceError: the system refuses to write.
    """
    keep_files(directory, ((f"{name}.txt", text.encode(errors="replace")) for name, text in texts.items()), folder)


def newest_texts(directory: Path) -> Sequence[tuple[str, str]]:
    """Return the newest texts for a report as (title, text) pairs: at most 16, each of at most 20,000 characters."""
    shown = []
    for title, path in newest_files(directory, ".txt")[:MOST_SHOWN]:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                shown.append((title, file.read(MOST_CHARACTERS)))
        except OSError:
            continue
    return shown


def text_figures(texts: Sequence[tuple[str, str]]) -> str:
    """Return texts as HTML, or '' where there are none."""
    return "".join(
        f"<figure><h3>{escape(printable(title))}</h3><pre>{escape(printable(content))}</pre></figure>"
        for title, content in texts
    )

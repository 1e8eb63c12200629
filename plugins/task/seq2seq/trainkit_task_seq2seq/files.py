"""Which files of some data hold records, and to which part, training, validation or test, they belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainkit.contracts import Finding
from trainkit.errors import DataError
from trainkit.tables import counted, listed

from .records import CELLS, JSON, LINES, MARKDOWN, PARQUET, kind_of

PARTS = ("train", "val", "test")
PART_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "eval": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
ABOUT = frozenset({"readme", "license", "licence", "contributing", "changelog", "index", "_index", "code_of_conduct"})
IN_WORDS = {LINES: "JSON lines", JSON: "JSON", CELLS: "CSV", PARQUET: "Parquet", MARKDOWN: "Markdown"}


@dataclass(frozen=True)
class Source:
    """Hold a file with records.

    Args:
        path: of the file.
        name: relative to the data.
        part: train, val or test, where a folder or the file's name says so; '' where samples are divided.
    """

    path: Path
    name: str
    part: str = ""


def sources(data: Path) -> tuple[list[Source], list[Finding]]:
    """Return the files of some data in the order of their names, and what is told of the others.

    Raises:
        DataError: there is none.
    """
    if not data.exists():
        raise DataError("there is no such file or folder", where=str(data), do="check the path")
    if data.is_file():
        return [Source(data, data.name)], []
    files = sorted(path for path in data.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(data)))
    read = [path for path in files if kind_of(path) is not None]
    # Words about data are Markdown, too: beside files of rows, and by names that tell, they are no records.
    rows = [path for path in read if kind_of(path) != MARKDOWN]
    used = rows or [path for path in read if path.stem.lower() not in ABOUT]
    if not used:
        known = ", ".join(suffix for kind in IN_WORDS for suffix in kind)
        raise DataError(
            "the folder has no records",
            where=str(data),
            why=f"{counted(len(files), 'file')} there, and none of records in {known}",
            do="name a file or a folder of them, as --data pairs.jsonl",
        )
    names = {path: path.relative_to(data).as_posix() for path in files}
    found = [Source(path, names[path], _part(path.relative_to(data))) for path in used]
    findings = []
    if others := [names[path] for path in files if path not in set(used)]:
        text = f"not read: {counted(len(others), 'file')}: {listed(others)}"
        findings.append(Finding("other file", ".", text, is_fault=False))
    parts = {source.part for source in found}
    if "" in parts and parts != {""}:
        loose = [source.name for source in found if not source.part]
        text = f"{counted(len(loose), 'file')} outside of train, val and test: {listed(loose)}: taken for training"
        findings.append(Finding("parts", ".", text, is_fault=False))
        found = [source if source.part else Source(source.path, source.name, "train") for source in found]
    return found, findings


def format_of(found: Sequence[Source]) -> str:
    """Return the formats of files in words."""
    kinds = dict.fromkeys(kind_of(source.path) for source in found)
    formats = " and ".join(IN_WORDS[kind] for kind in kinds if kind is not None)
    return f"{formats}, {counted(len(found), 'file')}"


def _part(path: Path) -> str:
    """Return the part that a path's first folder, or else its own name, stands for."""
    if len(path.parts) > 1:
        return PART_NAMES.get(path.parts[0].lower(), "")
    return PART_NAMES.get(path.name.lower().partition(".")[0], "")


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)

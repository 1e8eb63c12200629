"""What is to be answered: records without targets, or lines of a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainkit.errors import DataError, printable
from trainkit.tables import counted

from .files import sources
from .pairs import Pair, Schema, Unusable
from .reading import checked
from .records import Found, kind_of, records

TEXT_FILES = (".txt", ".prompt")


def read_inputs(paths: Sequence[Path], schema: Schema) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (name, text) of everything in files and folders, and what is told of the rest.

    Raises:
        DataError: a path does not exist, or holds nothing to answer.
    """
    found: list[tuple[str, str]] = []
    warnings: list[str] = []
    for path in paths:
        if not path.exists():
            raise DataError("there is no such file or folder", where=str(path), do="check the path")
        some = _lines(path) if path.is_file() and kind_of(path) is None else _records(path, schema, warnings)
        if not some:
            raise DataError("there is nothing to answer", where=str(path), why="; ".join(warnings[:3]))
        found += some
    return _with_own_names(found), warnings


def _lines(path: Path) -> list[tuple[str, str]]:
    """Return the lines of a text, each a prompt; raise DataError where it is no text."""
    if path.suffix.lower() not in TEXT_FILES and path.suffix:
        raise DataError(
            "the file has no prompts", where=str(path), do=f"name it {path.stem}.txt: a prompt on each line"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("the file is not written in UTF-8", where=str(path), why=printable(str(error))) from None
    return [(f"{path.stem}-{number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def _records(path: Path, schema: Schema, warnings: list[str]) -> list[tuple[str, str]]:
    used, findings = sources(path)
    warnings += [finding.text for finding in findings]
    found = []
    for source in used:
        for record in records(source.path, source.name):
            try:
                found.append(_prompt(record, schema))
            except Unusable as error:
                warnings.append(f"{record.place}: {error.text}")
    if found and warnings:
        warnings.append(f"{counted(len(found), 'record')} can be answered")
    return found


def _prompt(record: Found, schema: Schema) -> tuple[str, str]:
    if record.content is None:
        raise Unusable(record.rule, record.text)
    prompt = getattr(schema, "prompt", None)
    text = schema.pair(record.content).input if prompt is None else prompt(record.content)
    checked(Pair(text, text))
    name = record.content.get("id")
    return (str(name) if name else record.place, text)


def _with_own_names(found: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    seen: dict[str, int] = {}
    named = []
    for name, text in found:
        seen[name] = seen.get(name, 0) + 1
        named.append((name if seen[name] == 1 else f"{name}#{seen[name]}", text))
    return named

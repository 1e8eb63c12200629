"""What is to be answered: records without targets, or lines of a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainkit.errors import DataError, listed, printable

from .pairs import Pair, Schema, Unusable
from .reading import Policy, Reading, checked
from .records import Found, kind_of

TEXT_FILES = (".txt", ".prompt")


def read_inputs(paths: Sequence[Path], schema: Schema, policy: Policy) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (name, text) of everything in files and folders, and what is told of the rest.

    Raises:
        DataError: a path does not exist, holds nothing to answer, or has records that cannot be used, unless the
            policy leaves them out.
    """
    reading = Reading(schema, policy, listed(paths))
    found: list[tuple[str, str]] = []
    for path in paths:
        if not path.exists():
            raise DataError("there is no such file or folder", where=str(path), do="check the path")
        some = _lines(path) if path.is_file() and kind_of(path) is None else _records(path, reading)
        if not some and not reading.rejected:
            raise DataError("there is nothing to answer", where=str(path), why="; ".join(reading.warnings()[:3]))
        found += some
    reading.judge()
    if not found:
        raise DataError("there is nothing to answer", where=reading.where, why="\n".join(reading.fault_lines()))
    return _with_own_names(found), reading.warnings()


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


def _records(path: Path, reading: Reading) -> list[tuple[str, str]]:
    found = []
    for record, _ in reading.files(path, "inputs"):
        reading.count += 1
        try:
            found.append(_prompt(record, reading.schema))
        except Unusable as error:
            reading.reject(record.place, error.rule, error.text)
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

"""Records of files, one after the other: JSON lines, JSON, CSV, Parquet and Markdown. What is no record is told."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from trainkit.errors import DataError, printable
from trainkit.tables import separator_of

from .markdown import record_of

LINES = (".jsonl", ".ndjson")
JSON = (".json",)
CELLS = (".csv", ".tsv")
PARQUET = (".parquet",)
MARKDOWN = (".md", ".markdown")
PACKED = ".gz"
LONGEST_LINE = 16 * 2**20
LOOKED_AT = 1 << 16
ROWS_AT_ONCE = 4096
BOM = codecs.BOM_UTF8


@dataclass(frozen=True)
class Found:
    """Hold a record, or why there is none at a place.

    Args:
        place: file and line, or file and row.
        content: of the record; None where it cannot be read.
        rule: which rule is broken where there is none.
        text: what is there in its place.
    """

    place: str
    content: Mapping[str, Any] | None
    rule: str = ""
    text: str = ""


def kind_of(path: Path) -> tuple[str, ...] | None:
    """Return the suffixes of the format that a file's name tells, or None for a file that is not read."""
    name = path.name.lower().removesuffix(PACKED)
    packs = path.name.lower().endswith(PACKED)
    for kind in (LINES, JSON, CELLS, PARQUET, MARKDOWN):
        if name.endswith(kind) and not (packs and kind in (PARQUET, MARKDOWN)):
            return kind
    return None


def records(path: Path, name: str) -> Iterator[Found]:
    """Yield the records of a file in their order.

    Args:
        path: the file.
        name: how it is called in places.

    Raises:
        DataError: the file as a whole cannot be read.
    """
    readers = {LINES: _lines, JSON: _json, CELLS: _cells, PARQUET: _parquet, MARKDOWN: _markdown}
    kind = kind_of(path)
    if kind is None:
        raise DataError(
            "the file has no records",
            where=name,
            why=f"names end in {', '.join((*LINES, *JSON, *CELLS, *PARQUET, *MARKDOWN))}, some with {PACKED}",
        )
    try:
        yield from readers[kind](path, name)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError("the file cannot be read", where=name, why=printable(str(error))) from error


def _open(path: Path, name: str) -> BinaryIO:
    """Open a file, unpacked, behind its byte order mark; raise DataError for UTF-16."""
    file: BinaryIO
    file = io.BufferedReader(gzip.GzipFile(path)) if path.name.lower().endswith(PACKED) else path.open("rb")
    head = file.read(len(BOM))
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        file.close()
        raise DataError(
            "the file is not written in UTF-8",
            where=name,
            why="it begins with the byte order mark of UTF-16",
            do="save it as UTF-8, as by: iconv -f UTF-16 -t UTF-8 FILE > NEW",
        )
    if head != BOM:
        file.seek(0)
    return file


def _raw_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield the number of each line and its bytes; None for one that is too long, of which no more is kept."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) <= LONGEST_LINE:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE + 1)
        yield number, None


def _lines(path: Path, name: str) -> Iterator[Found]:
    with _open(path, name) as file:
        for number, line in _raw_lines(file):
            place = f"{name}:{number}"
            if line is None:
                yield Found(place, None, "long line", f"the line is longer than {LONGEST_LINE >> 20} MiB")
            elif line.strip():
                yield _parsed(line, place)


def _parsed(line: bytes, place: str) -> Found:
    try:
        content = json.loads(line)
    except UnicodeDecodeError as error:
        return Found(place, None, "encoding", f"it is not UTF-8: byte {line[error.start]:#04x} begins no letter")
    except RecursionError:
        return Found(place, None, "broken line", "it nests too deep")
    except ValueError as error:
        return Found(place, None, "broken line", f"it is no JSON: {printable(str(error))}")
    if not isinstance(content, dict):
        return Found(place, None, "no record", f"it is {_kind(content)}, and a record is an object with names")
    return Found(place, content)


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")


def _json(path: Path, name: str) -> Iterator[Found]:
    with _open(path, name) as file:
        data = file.read()
    found = _parsed(data, name)
    if found.content is not None:
        lists = [value for value in found.content.values() if _holds_records(value)]
        if len(lists) == 1:
            yield from _items(lists[0], name)
        else:
            # One object is one record, as in a folder with a file for each.
            yield found
        return
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise DataError("the file is no JSON", where=name, why=found.text) from None
    if not isinstance(content, list):
        raise DataError("the file has no records", where=name, why=f"it holds {_kind(content)}")
    yield from _items(content, name)


def _holds_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _items(items: list[Any], name: str) -> Iterator[Found]:
    for number, item in enumerate(items, 1):
        place = f"{name}, item {number}"
        if isinstance(item, dict):
            yield Found(place, item)
        else:
            yield Found(place, None, "no record", f"it is {_kind(item)}, and a record is an object with names")


def _cells(path: Path, name: str) -> Iterator[Found]:
    with _open(path, name) as file:
        head = file.peek(LOOKED_AT)[:LOOKED_AT] if hasattr(file, "peek") else b""
        if not head.strip():
            raise DataError("the file is empty", where=name, do="leave it out, or fill it")
        separator = "\t" if ".tsv" in path.name.lower() else separator_of(head.decode("utf-8", "replace"), name)
        # What is not UTF-8 comes through as surrogates, and is told of the record that holds it.
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        csv.field_size_limit(LONGEST_LINE)
        rows = csv.reader(text, delimiter=separator)
        yield from _rows(rows, name)


def _rows(rows: Any, name: str) -> Iterator[Found]:
    header: list[str] | None = None
    while True:
        begin = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Found(f"{name}:{begin}", None, "broken line", printable(str(error)))
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            if len(set(header)) < len(header):
                twice = next(cell for cell in header if header.count(cell) > 1)
                raise DataError(f"two columns are named {twice!r}", where=name, do="give each a name of its own")
        elif len(cells) > len(header):
            text = f"{len(cells)} cells, and {len(header)} columns: quote cells that hold a separator"
            yield Found(f"{name}:{begin}", None, "broken line", text)
        elif cells:
            yield Found(f"{name}:{begin}", dict(zip(header, cells, strict=False)))


def _parquet(path: Path, name: str) -> Iterator[Found]:
    import polars as pl

    try:
        lazy = pl.scan_parquet(path)
        count = int(lazy.select(pl.len()).collect().item())
        for first in range(0, count, ROWS_AT_ONCE):
            frame = lazy.slice(first, ROWS_AT_ONCE).collect()
            for number, row in enumerate(frame.iter_rows(named=True), first + 1):
                yield Found(f"{name}, row {number}", row)
    except pl.exceptions.PolarsError as error:
        lines = str(error).strip().splitlines()
        raise DataError("the file cannot be read", where=name, why=printable(lines[0]) if lines else "") from error


def _markdown(path: Path, name: str) -> Iterator[Found]:
    with _open(path, name) as file:
        data = file.read(LONGEST_LINE + 1)
    if len(data) > LONGEST_LINE:
        yield Found(name, None, "long file", f"the file is longer than {LONGEST_LINE >> 20} MiB")
        return
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        yield Found(name, None, "encoding", f"it is not UTF-8: byte {data[error.start]:#04x} begins no letter")
        return
    yield Found(name, record_of(text, name))

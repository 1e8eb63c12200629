"""Tables from CSV and Parquet files, all cells still as they were written. Needs polars, which plugins bring along."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import polars as pl

from .contracts import Finding
from .errors import DataError, listed

TEXT_FILES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
FILES = (*TEXT_FILES, ".parquet")
SEPARATORS = (",", ";", "\t", "|")
LOOKED_AT = 1 << 16
BOM = "\ufeff"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
MOMENT = re.compile(r"\d{4}[-/]\d{2}[-/]\d{2}.*|\d{9,}")


@dataclass(frozen=True)
class Table:
    """Hold what a file holds.

    Args:
        name: the file, relative to the data.
        frame: its cells; those of CSV are text without blanks around it.
        header_lines: lines before the first row, to tell a row's line; 0 where there are no lines.
        separator: between the cells of a line; '' where there are no lines.
    """

    name: str
    frame: pl.DataFrame
    header_lines: int = 1
    separator: str = ""

    def place(self, row: int) -> str:
        """Return the place of a row, from 0, for people."""
        return f"{self.name}:{row + 1 + self.header_lines}" if self.header_lines else f"{self.name}, row {row + 1}"


def read_tables(paths: Sequence[Path]) -> tuple[list[Table], list[Finding]]:
    """Read files, and the files in folders, in the order of their names; what is no table is told.

    Raises:
        DataError: there is no table, or one cannot be read.
    """
    tables, findings = [], []
    for path in paths:
        if not path.exists():
            raise DataError("there is no such file or folder", where=str(path), do="check the path")
        if path.is_file():
            tables.append(read_table(path, path.name))
            continue
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        used = [file for file in files if is_table(file)]
        if not used:
            why = f"{len(files)} files are there, and none ends in {', '.join(FILES)}"
            raise DataError("the folder has no table", where=str(path), why=why, do="name a folder of CSV or Parquet")
        tables += [read_table(file, file.relative_to(path).as_posix()) for file in used]
        if others := [file.relative_to(path).as_posix() for file in files if not is_table(file)]:
            text = f"not read, as no table: {counted(len(others), 'file')}: {listed(others)}"
            findings.append(Finding("other file", ".", text, is_fault=False))
    return tables, findings


def is_table(path: Path) -> bool:
    """Return whether a file's name is that of a table."""
    return path.name.lower().endswith(FILES)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: 1 row, 2 rows."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def read_table(path: Path, name: str) -> Table:
    """Read a file; raise DataError if it is empty, damaged, or no table."""
    if not is_table(path):
        raise DataError("the file is no table", where=name, why=f"names end in {', '.join(FILES)}")
    try:
        if path.name.lower().endswith(".parquet"):
            return _checked(Table(name, pl.read_parquet(path), 0))
        head = _head(path, name)
        if not head.strip():
            raise DataError("the file is empty", where=name, do="leave it out, or fill it")
        separator = separator_of(head, name)
        frame = _cells(path, name, separator)
    except DataError:
        raise
    except (pl.exceptions.PolarsError, OSError, EOFError) as error:
        raise _unreadable(name, error) from error
    columns = [column.strip().removeprefix(BOM).strip().strip('"') for column in frame.columns]
    # Polars gives the second of two columns a name of its own.
    bare = [re.sub(r"_duplicated_\d+$", "", column) for column in columns]
    if twice := sorted({name for name in bare if bare.count(name) > 1}):
        raise DataError(f"two columns are named {twice[0]!r}", where=name, do="give each a name of its own")
    if all(NUMBER.fullmatch(cell) or MOMENT.fullmatch(cell) for cell in bare) and any(map(MOMENT.fullmatch, bare)):
        raise DataError(
            "the file has no header",
            where=f"{name}:1",
            why=f"its first line is a row: {', '.join(bare)[:60]}",
            do="begin it with a line of the columns' names",
        )
    frame.columns = columns
    return _checked(Table(name, frame.select(pl.all().str.strip_chars()), 1, separator))


def _checked(table: Table) -> Table:
    if table.frame.height == 0:
        raise DataError("the table has no row", where=table.name, do="leave the file out, or fill it")
    return table


def _open(path: Path) -> BinaryIO:
    """Open a file, unpacked."""
    packed = path.suffix.lower() == ".gz"
    return io.BufferedReader(gzip.GzipFile(path)) if packed else path.open("rb")


def _head(path: Path, name: str) -> str:
    with _open(path) as file:
        data = file.read(LOOKED_AT)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _not_utf8(name, "it begins with the byte order mark of UTF-16", "UTF-16")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise DataError("the file is no text", where=f"{name}:{line}", why="it holds a byte 0", do="leave it out")
    try:
        # Not final: the last letter may be cut in two.
        text = codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _not_utf8(f"{name}:{line}", f"byte {data[error.start]:#04x} begins no letter") from None
    return text.removeprefix(BOM)


def _not_utf8(where: str, why: str, written: str = "LATIN1") -> DataError:
    do = f"save it as UTF-8, as by: iconv -f {written} -t UTF-8 FILE > NEW"
    return DataError("the file is not written in UTF-8", where=where, why=why, do=do)


def _unreadable(name: str, error: Exception) -> DataError:
    reason = str(error).strip().splitlines()
    return DataError("the file cannot be read", where=name, why=reason[0] if reason else "")


def _cells(path: Path, name: str, separator: str) -> pl.DataFrame:
    try:
        return pl.read_csv(path, separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise _fault(path, name, separator) or _unreadable(name, error) from error


def _fault(path: Path, name: str, separator: str) -> DataError | None:
    """Return what is wrong with which line of a file: the reader is fast, and tells no line."""
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return _not_utf8(f"{name}:{number}", f"byte {line[error.start]:#04x} begins no letter")
    width = 0
    with _open(path) as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
        rows = csv.reader(text, delimiter=separator)
        with contextlib.suppress(csv.Error):
            for cells in rows:
                width = width or len(cells)
                if len(cells) > width:
                    return DataError(
                        "a row has more cells than the header",
                        where=f"{name}:{rows.line_num}",
                        why=f"{len(cells)} cells, and {width} columns",
                        do="correct the row, or quote the cells that hold a separator",
                    )
    return None


def separator_of(head: str, name: str) -> str:
    """Return what separates the cells: what occurs in the header, and as often in the lines after it.

    Raises:
        DataError: nothing does.
    """
    lines = [line for line in head.splitlines() if line.strip()][:20]
    whole = lines[:-1] if len(lines) > 2 else lines
    counts = {mark: [line.count(mark) for line in whole] for mark in SEPARATORS}
    even = [mark for mark in SEPARATORS if counts[mark][0] and len(set(counts[mark])) == 1]
    if even:
        # Of marks that occur evenly, as a TAB after each semicolon, the plain one comes first.
        return max(even, key=lambda mark: (counts[mark][0], -SEPARATORS.index(mark)))
    header = {mark: counts[mark][0] for mark in SEPARATORS if counts[mark][0]}
    rows = [mark for mark in SEPARATORS if len(whole) > 1 and all(counts[mark][1:])]
    if header and rows and not any(any(counts[mark][1:]) for mark in header):
        raise DataError(
            "the header and the rows are separated by different marks",
            where=f"{name}:1",
            why=f"the header by {next(iter(header))!r}, the rows by {rows[0]!r}",
            do="separate all cells by commas",
        )
    if header:
        return max(header, key=lambda mark: header[mark])
    raise DataError(
        "the file has a single column",
        where=f"{name}:1",
        why=f"its first line is {lines[0][:60]!r}, and none of comma, semicolon, TAB and | is in it",
        do="separate the cells by commas",
    )

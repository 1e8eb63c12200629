"""What each column of a table is: the time, the series, a target, an input, a static."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from trainkit.contracts import Finding
from trainkit.errors import DataError, did_you_mean
from trainkit.tables import Table, listed

TIME_NAMES = ("timestamp", "datetime", "date time", "date", "time", "ds", "ts")
SERIES_NAMES = ("series", "series id", "unique id", "item id", "id", "machine", "host", "server", "symbol", "ticker")
EMPTY_CELLS = ("", "na", "n/a", "nan", "null", "none", "-", "?")
FILE_SERIES = "series"
# Squares of larger ones are no float32.
LARGEST = 1e19


@dataclass(frozen=True)
class Schema:
    """Name the columns.

    Args:
        time: times of the rows; '' where it is to be found.
        series: names of the series; '' where the file's name is that.
        targets: what is forecast.
        observed: inputs that are known over the past alone.
        known: inputs that are known over the horizon, too.
        statics: facts that do not change within a series, numbers or words; 'series' is its name.
    """

    time: str = ""
    series: str = ""
    targets: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    statics: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[str, ...]:
        """Return the columns of numbers, in the order in which they are kept."""
        return (*self.targets, *self.observed, *self.known)

    def sentence(self) -> str:
        """Return it for people."""
        parts = [f"time {self.time!r}", f"series {self.series!r}" if self.series else "a series a file"]
        words = ("targets", "observed", "known", "statics")
        parts += [f"{word} {', '.join(getattr(self, word))}" for word in words if getattr(self, word)]
        return "; ".join(parts)

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Schema:
        """Return what `document` gave."""
        lists = {name: tuple(document[name]) for name in ("targets", "observed", "known", "statics")}
        return cls(time=document["time"], series=document["series"], **lists)


def find_schema(tables: Sequence[Table], asked: Schema) -> tuple[Schema, list[Finding]]:
    """Return the schema with what was not asked for found, by names first and by content then.

    Raises:
        DataError: a column that is asked for is missing, or no time or no target can be found.
    """
    first = tables[0]
    if sum(table.frame.height for table in tables) < 2:
        raise DataError("one row is no series", where=first.name, do="give rows of several times")
    _check_roles(asked)
    findings: list[Finding] = []
    found = replace(asked, time=asked.time or _time_column(first, asked))
    if not asked.series:
        found = replace(found, series=_series_column(first, found))
    if not asked.targets:
        targets, left_out = _target_columns(tables, found)
        found = replace(found, targets=targets)
        findings += [Finding("column", first.name, text, is_fault=False) for text in left_out]
    if not found.targets:
        raise DataError(
            "no column can be forecast",
            where=first.name,
            why="; ".join(finding.text for finding in findings) or f"it has {', '.join(first.frame.columns)}",
            do="name one: --set 'task.targets=[\"NAME\"]'",
        )
    check_columns(tables, found)
    return found, findings


def check_columns(tables: Sequence[Table], schema: Schema, without: Sequence[str] = ()) -> None:
    """Raise DataError if a table lacks a column; those of `without` need not be there."""
    statics = [name for name in schema.statics if name != FILE_SERIES or schema.series == FILE_SERIES]
    wanted = [name for name in (schema.time, schema.series, *schema.numbers, *statics) if name and name not in without]
    for table in tables:
        for name in wanted:
            if name not in table.frame.columns:
                raise DataError(
                    f"there is no column {name!r}{did_you_mean(name, table.frame.columns)}",
                    where=table.name,
                    why=f"it has {', '.join(table.frame.columns)}",
                    do="correct the option of the task that names it",
                )


def refound(tables: Sequence[Table], schema: Schema) -> tuple[Schema, list[Finding]]:
    """Return a schema for other tables, and what it changed: times and series may be called otherwise there."""
    first, columns = tables[0], tables[0].frame.columns
    here = schema
    if schema.time not in columns:
        here = replace(here, time=_time_column(first, replace(here, series="")))
    if schema.series and schema.series not in columns:
        here = replace(here, series=_series_column(first, here))
    told = [
        Finding("other name", first.name, f"{role} {now!r}, and {then!r} in training", is_fault=False)
        for role, now, then in (("time", here.time, schema.time), ("series", here.series, schema.series))
        if now != then
    ]
    return here, told


def _check_roles(asked: Schema) -> None:
    roles = [name for name in (asked.time, *asked.numbers) if name]
    if twice := sorted({name for name in roles if roles.count(name) > 1}):
        raise DataError(f"column {twice[0]!r} has two roles", why="one of time, targets, observed and known")


def _plain(name: str) -> str:
    return re.sub(r"[\[(].*?[\])]", "", re.sub(r"[_-]+", " ", name)).strip().lower()


def _time_column(table: Table, asked: Schema) -> str:
    columns = [name for name in table.frame.columns if name not in (asked.series, *asked.numbers, *asked.statics)]
    for name in columns:
        if table.frame[name].dtype in (pl.Datetime, pl.Date):
            return name
    for wanted in TIME_NAMES:
        for name in columns:
            if _plain(name) == wanted:
                return name
    for name in columns:
        head = table.frame[name].head(50).drop_nulls().cast(pl.String)
        if len(head) and head.str.contains(r"^\d{4}[-/]\d{2}[-/]\d{2}").all():
            return name
    raise DataError(
        "no column of times can be found",
        where=table.name,
        why=f"it has {', '.join(table.frame.columns)}",
        do="name it: --set task.time=NAME",
    )


def _series_column(table: Table, found: Schema) -> str:
    taken = (found.time, *found.numbers)
    for wanted in SERIES_NAMES:
        for name in table.frame.columns:
            if _plain(name) == wanted and name not in taken:
                return name
    return ""


def _target_columns(tables: Sequence[Table], found: Schema) -> tuple[tuple[str, ...], list[str]]:
    taken = (found.time, found.series, *found.observed, *found.known, *found.statics)
    words, still, empty, targets = [], [], [], []
    for name in tables[0].frame.columns:
        if name in taken:
            continue
        parts = [numbers_of(table, name)[0] for table in tables if name in table.frame.columns]
        there = sum(int(filled(table.frame[name]).sum()) for table in tables if name in table.frame.columns)
        if not there:
            empty.append(name)
        elif 2 * sum(len(part) - part.null_count() for part in parts) <= there:
            words.append(name)
        elif all(part.drop_nulls().n_unique() < 2 for part in parts):
            still.append(name)
        else:
            targets.append(name)
    left_out = [f"not a target, as it holds words: {listed(words)}"] if words else []
    if still:
        left_out.append(f"not a target, as it never changes: {listed(still)}")
    if empty:
        left_out.append(f"not a target, as it is empty: {listed(empty)}")
    return tuple(targets), left_out


def filled(cells: pl.Series) -> pl.Series:
    """Return where something is written in a cell."""
    if cells.dtype != pl.String:
        return cells.is_not_null()
    return cells.is_not_null() & ~cells.str.to_lowercase().is_in(EMPTY_CELLS)


def as_numbers(cells: pl.Series) -> pl.Series:
    """Return cells as numbers, null where they are none; infinities, NaN and what is beyond LARGEST are none."""
    if cells.dtype != pl.String and not cells.dtype.is_numeric() and cells.dtype != pl.Boolean:
        return pl.Series(cells.name, [None] * len(cells), dtype=pl.Float64)
    numbers = cells.cast(pl.Float64, strict=False)
    return pl.select(pl.when(numbers.abs() <= LARGEST).then(numbers)).to_series().alias(cells.name)


def numbers_of(table: Table, name: str) -> tuple[pl.Series, int]:
    """Return a column as numbers, and how many of them have a decimal comma, where no comma separates cells."""
    cells = table.frame[name]
    numbers = as_numbers(cells)
    if cells.dtype != pl.String or table.separator in ("", ","):
        return numbers, 0
    commas = as_numbers(cells.str.replace(r"^([+-]?\d+),(\d+)$", "$1.$2"))
    return commas, numbers.null_count() - commas.null_count()

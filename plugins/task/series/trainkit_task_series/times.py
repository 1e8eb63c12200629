"""Times of rows: microseconds since 1970, in UTC where a zone is known, else as on the wall."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl
from trainkit.contracts import Finding
from trainkit.errors import DataError
from trainkit.tables import Table, counted

Times = np.ndarray[tuple[int], np.dtype[np.int64]]
MISSING = np.iinfo(np.int64).min
# Microseconds in a unit, and the word for it.
UNITS = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
EARLIEST, LATEST = 315_532_800e6, 4_102_444_800e6
FORMATS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d", "%Y/%m/%dT%H:%M:%S%.f", "%Y/%m/%dT%H:%M", "%Y/%m/%d")
OFFSET = r"(Z|[+-]\d{2}:?\d{2})$"
MOST_BAD = 0.05


@dataclass(frozen=True)
class TimeFormat:
    """Hold how times are to be read.

    Args:
        pattern: as 'strftime' writes it; ISO 8601 and numbers since 1970 are understood without.
        zone: IANA name of the zone of times that name none, as 'Europe/Amsterdam'.
    """

    pattern: str | None = None
    zone: str | None = None


def read_times(table: Table, column: str, how: TimeFormat) -> tuple[Times, list[Finding]]:
    """Return the time of each row, MISSING where there is none, and what was found out.

    Raises:
        DataError: the column holds no times, or times with and without a zone.
    """
    cells = table.frame[column]
    findings: list[Finding] = []
    on_the_wall, kind = False, "neither ISO 8601 (2026-01-31 12:00) nor a number since 1970"
    if cells.dtype in (pl.Datetime, pl.Date):
        on_the_wall = not isinstance(cells.dtype, pl.Datetime) or cells.dtype.time_zone is None
        parsed = cells.cast(pl.Datetime("us", None if on_the_wall else "UTC"))
    elif how.pattern is None and (numbers := _numbers(cells)) is not None:
        parsed, unit = _since_1970(numbers, table, column, findings)
        kind = f"no time from 1980 to 2100 in {WORDS[unit]} since 1970, as the middle one of the column is"
    else:
        parsed, on_the_wall = _written(cells.cast(pl.String), table, column, how, findings)
        kind = kind if how.pattern is None else f"not written as task.time_format says, {how.pattern!r}"
    bad = parsed.is_null() & cells.is_not_null()
    empty = int(cells.is_null().sum())
    _tell_bad(table, column, cells, bad, empty, kind, findings)
    if on_the_wall:
        parsed = _in_zone(parsed, how.zone, table, findings)
    times = parsed.dt.timestamp("us").fill_null(MISSING).to_numpy().astype(np.int64)
    return times, findings


def _numbers(cells: pl.Series) -> pl.Series | None:
    """Return cells as numbers if nine of ten are such."""
    numbers = cells.cast(pl.Float64, strict=False)
    there = int(cells.is_not_null().sum())
    return numbers if there and int(numbers.is_not_null().sum()) >= 0.9 * there else None


def _since_1970(numbers: pl.Series, table: Table, column: str, findings: list[Finding]) -> tuple[pl.Series, str]:
    """Return times and their unit, that in which the middle one lies within our years."""
    middle = numbers.median()
    assert isinstance(middle, float)
    fitting = [unit for unit, size in UNITS.items() if EARLIEST <= middle * size <= LATEST]
    if not fitting:
        raise DataError(
            f"column {column!r} holds numbers that are no times, as {middle:g}",
            where=table.name,
            why="read as seconds, milliseconds, microseconds or nanoseconds since 1970 they lie outside of 1980-2100",
            do="name the column of times: --set task.time=NAME",
        )
    unit = fitting[0]
    said = re.search(r"[\[(_ ](ms|us|ns|s)[\])]?$", column.strip())
    if said and said[1] != unit:
        first = np.datetime64(int(middle * UNITS[unit]), "us").astype("datetime64[D]")
        text = f"column {column!r} says {said[1]}, and its numbers are {WORDS[unit]} since 1970 (about {first})"
        findings.append(Finding("unit of time", table.name, text, is_fault=False))
    whole = (numbers * UNITS[unit]).round()
    allowed = (whole >= EARLIEST) & (whole <= LATEST)
    kept = whole.to_frame("t").select(pl.when(allowed).then(pl.col("t")).cast(pl.Int64))["t"]
    return kept.cast(pl.Datetime("us")), unit


def _written(
    cells: pl.Series, table: Table, column: str, how: TimeFormat, findings: list[Finding]
) -> tuple[pl.Series, bool]:
    """Return times, and whether they are as on the wall, in a zone that they do not name."""
    offsets = cells.str.extract(OFFSET)
    zoned = cells.str.contains(r"\d:\d{2}(:\d{2}(\.\d+)?)?\s*" + OFFSET).fill_null(value=False)
    if zoned.any() and not zoned.filter(cells.is_not_null()).all():
        row = int((~zoned & cells.is_not_null()).arg_max() or 0)
        raise DataError(
            f"column {column!r} has times with a zone and times without",
            where=table.place(row),
            why=f"{cells[row]!r} names none",
            do="write them all in one way",
        )
    if not zoned.any():
        return _parsed(cells, how.pattern), True
    bare = cells.str.replace(r"\s*" + OFFSET, "")
    hours = offsets.str.replace("Z", "+00:00").str.replace(":", "")
    minutes = hours.str.slice(1, 2).cast(pl.Int64, strict=False) * 60 + hours.str.slice(3, 2).cast(
        pl.Int64, strict=False
    )
    sign = pl.select(pl.when(hours.str.starts_with("-")).then(-1).otherwise(1)).to_series()
    parsed = _parsed(bare, how.pattern)
    moved = (parsed.cast(pl.Int64) - sign * minutes * 60_000_000).cast(pl.Datetime("us"))
    kinds = hours.drop_nulls().unique().sort().to_list()
    if len(kinds) > 1:
        text = f"column {column!r} has times of several offsets ({', '.join(kinds[:4])}): all were taken to UTC"
        findings.append(Finding("mixed zones", table.name, text, is_fault=False))
    return moved, False


def _parsed(cells: pl.Series, pattern: str | None) -> pl.Series:
    best = cells.str.to_datetime(pattern, time_unit="us", strict=False) if pattern else None
    iso = cells.str.replace(r"^(\S+)\s+", "${1}T")
    for known in FORMATS if best is None else ():
        found = (
            iso.str.to_date(known, strict=False).cast(pl.Datetime("us"))
            if "%H" not in known
            else iso.str.to_datetime(known, time_unit="us", strict=False)
        )
        best = found if best is None else pl.select(pl.coalesce(best, found)).to_series()
        if best.null_count() == cells.null_count():
            break
    assert best is not None
    return best


def _in_zone(naive: pl.Series, zone: str | None, table: Table, findings: list[Finding]) -> pl.Series:
    """Return times on the wall in UTC, if their zone is given."""
    if zone is None:
        return naive
    try:
        placed = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    except pl.exceptions.PolarsError:
        raise DataError(f"there is no time zone {zone!r}", where="task.time_zone", do="as Europe/Amsterdam") from None
    skipped = naive.is_not_null() & placed.is_null()
    if count := int(skipped.sum()):
        row = int(skipped.arg_max() or 0)
        text = f"{counted(count, 'time')} that {zone} skipped, as the clock went forward: left out"
        findings.append(Finding("clock change", table.place(row), text, is_fault=False))
    in_utc = placed.dt.convert_time_zone("UTC")
    second = naive.dt.replace_time_zone(zone, ambiguous="latest", non_existent="null").dt.convert_time_zone("UTC")
    if doubled := int((in_utc != second).sum()):
        text = f"{counted(doubled, 'time')} of {zone} that came twice, as the clock went back: taken for the first"
        findings.append(Finding("clock change", table.name, text, is_fault=False))
    return in_utc.dt.replace_time_zone(None)


def _tell_bad(
    table: Table, column: str, cells: pl.Series, bad: pl.Series, empty: int, kind: str, findings: list[Finding]
) -> None:
    count = int(bad.sum())
    if count:
        row = int(bad.arg_max() or 0)
        if count > MOST_BAD * len(cells):
            raise DataError(
                f"column {column!r}: {count} of {len(cells)} cells are no times",
                where=table.place(row),
                why=f"{cells[row]!r} is {kind}",
                do="give the pattern, as --set task.time_format='%d.%m.%Y %H:%M', or another column by task.time",
            )
        text = f"{counted(count, 'row')} without a readable time, the first {str(cells[row])!r}: left out"
        findings.append(Finding("unreadable time", table.place(row), text, is_fault=False))
    if empty:
        row = int(cells.is_null().arg_max() or 0)
        text = f"{counted(empty, 'row')} without a time: left out"
        findings.append(Finding("no time", table.place(row), text, is_fault=False))

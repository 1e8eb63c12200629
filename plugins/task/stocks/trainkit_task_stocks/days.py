"""Trading days: times as the exchange's wall clock shows them, however a file writes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from trainkit.errors import DataError
from trainkit.tables import Table

from .cells import is_filled

OFFSET = r"\s*(Z|[+-]\d{2}:?\d{2})$"
CLOCK = r"(?:[T\s]+(\d{1,2}):?(\d{2})(?::?(\d{2})(?:\.\d+)?)?\s*([AaPp][Mm])?)?$"
YEAR_FIRST = r"^(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})" + CLOCK
YEAR_LAST = r"^(\d{1,2})([-/.])(\d{1,2})[-/.](\d{4}|\d{2})" + CLOCK
TOGETHER = r"^(\d{4})(\d{2})(\d{2})" + CLOCK
NAMED = ("%b %d, %Y", "%b %d %Y", "%d-%b-%Y", "%d %b %Y", "%d-%b-%y", "%d %b %y", "%B %d, %Y", "%d %B %Y")
# Microseconds in a unit of numbers since 1970; a column is of the first unit that puts it between 1950 and 2100.
UNITS = {"seconds": 1e6, "milliseconds": 1e3, "microseconds": 1.0, "nanoseconds": 1e-3}
EARLIEST, LATEST = -631_152_000e6, 4_102_444_800e6
EARLIEST_SINCE_1970 = 157_766_400e6
PIVOT = 70
MOST_BAD = 0.05


@dataclass(frozen=True)
class DateFormat:
    """Hold how times are to be read, where their column alone does not tell.

    Args:
        pattern: as 'strftime' writes it, as '%d/%m/%Y'.
        zone: IANA name of the exchange's zone, as 'Asia/Tokyo': times with an offset, and numbers since 1970, are
            brought to its wall clock. Without it a time with an offset keeps the clock it shows.
    """

    pattern: str | None = None
    zone: str | None = None


def read_days(table: Table, cells: pl.Series, how: DateFormat) -> pl.Series:
    """Return times as Datetime in microseconds on the exchange's wall clock, null where none can be read.

    Where rows are days, their time is midnight: neither the change of clocks nor a last row that is still being
    traded moves a day or doubles it.

    Args:
        table: what the cells are of, for messages.
        cells: text, numbers since 1970 or times.
        how: pattern and zone.

    Raises:
        DataError: day and month cannot be told apart, contradict each other, or more than 5 % cannot be read.
    """
    there = is_filled(cells)
    if cells.dtype in (pl.Datetime, pl.Date):
        times = _typed(cells, how.zone)
    elif how.pattern is not None:
        times = _by_pattern(cells.cast(pl.String), how)
    else:
        text = cells.cast(pl.String)
        numbers = cells.cast(pl.Float64, strict=False)
        most = 0.9 * int(there.sum())
        written_together = text.str.contains(r"^(19|20)\d{6}$").sum() >= most
        if 0 < most <= len(numbers) - numbers.null_count() and not written_together:
            times = _since_1970(table, numbers, how.zone)
        else:
            times = _written(table, text, how.zone)
    bad = there & times.is_null()
    if (count := int(bad.sum())) > MOST_BAD * len(cells):
        row = int(bad.arg_max() or 0)
        raise DataError(
            f"{count} of {len(cells)} cells of column {cells.name!r} are no dates",
            where=table.place(row),
            why=f"{cells[row]!r} is none of YYYY-MM-DD, MM/DD/YYYY, DD/MM/YYYY, YYYYMMDD and numbers since 1970",
            do="give the pattern: --set task.date_format='%d.%m.%Y'",
        )
    days = times.dt.truncate("1d")
    found = days.drop_nulls()
    daily = len(found) > 0 and found.n_unique() >= 0.9 * len(found)
    return (days if daily else times).alias("time")


def _typed(cells: pl.Series, zone: str | None) -> pl.Series:
    if isinstance(cells.dtype, pl.Datetime) and cells.dtype.time_zone is not None:
        placed = _in_zone(cells, zone) if zone else cells
        return placed.dt.replace_time_zone(None).cast(pl.Datetime("us"))
    return cells.cast(pl.Datetime("us"))


def _in_zone(times: pl.Series, zone: str) -> pl.Series:
    try:
        return times.dt.convert_time_zone(zone)
    except pl.exceptions.PolarsError:
        raise DataError(f"there is no time zone {zone!r}", where="task.time_zone", do="as America/New_York") from None


def _by_pattern(text: pl.Series, how: DateFormat) -> pl.Series:
    assert how.pattern is not None
    zoned = "%z" in how.pattern
    bare = text if zoned else text.str.replace(OFFSET, "")
    try:
        if any(mark in how.pattern for mark in ("%H", "%I", "%s", "%T", "%R")):
            times = bare.str.to_datetime(how.pattern, time_unit="us", strict=False)
        else:
            times = bare.str.to_date(how.pattern, strict=False).cast(pl.Datetime("us"))
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{how.pattern!r} is no pattern of dates", where="task.date_format", do="as '%d/%m/%Y'"
        ) from error
    return _typed(times, how.zone)


def _since_1970(table: Table, numbers: pl.Series, zone: str | None) -> pl.Series:
    middle = float(np.nanmedian(numbers.drop_nulls().to_numpy()))
    unit = next((unit for unit, size in UNITS.items() if EARLIEST_SINCE_1970 <= middle * size <= LATEST), None)
    if unit is None:
        raise DataError(
            f"column {numbers.name!r} holds numbers that are no times, as {middle:g}",
            where=table.name,
            why="read as seconds to nanoseconds since 1970 they lie outside of 1975-2100",
            do="write days as YYYY-MM-DD",
        )
    whole = (numbers * UNITS[unit]).round()
    allowed = pl.select(pl.when((whole >= EARLIEST) & (whole <= LATEST)).then(whole)).to_series().cast(pl.Int64)
    times = allowed.cast(pl.Datetime("us", "UTC"))
    return _typed(times, zone)


def _written(table: Table, text: pl.Series, zone: str | None) -> pl.Series:
    plain = text.str.to_date("%Y-%m-%d", strict=False)
    if plain.null_count() == text.null_count():
        return plain.cast(pl.Datetime("us"))
    offset = text.str.extract(r":\d{2}(?:\.\d+)?" + OFFSET, 1).str.replace("Z", "+00:00", literal=True)
    bare = pl.select(pl.when(offset.is_null()).then(text).otherwise(text.str.replace(OFFSET, ""))).to_series()
    times = _from_parts(bare, YEAR_FIRST, (1, 2, 3), 4)
    if times.null_count():
        times = _first_of(times, _from_parts(bare, TOGETHER, (1, 2, 3), 4))
    if times.null_count() and bare.str.contains(YEAR_LAST).any():
        day, month = (1, 3) if _day_is_first(table, bare) else (3, 1)
        times = _first_of(times, _from_parts(bare, YEAR_LAST, (4, month, day), 5))
    if times.null_count() > text.is_null().sum():
        for pattern in NAMED:
            times = _first_of(times, bare.str.to_date(pattern, strict=False).cast(pl.Datetime("us")))
    if zone is None or offset.is_null().all():
        return times
    signed = offset.str.replace(":", "", literal=True).cast(pl.Int64, strict=False)
    minutes = signed.sign() * (signed.abs() // 100 * 60 + signed.abs() % 100)
    in_utc = (times.cast(pl.Int64) - minutes.fill_null(0) * 60_000_000).cast(pl.Datetime("us", "UTC"))
    return _typed(in_utc, zone)


def _first_of(times: pl.Series, others: pl.Series) -> pl.Series:
    return pl.select(pl.coalesce(times, others)).to_series()


def _from_parts(text: pl.Series, pattern: str, groups: tuple[int, int, int], clock: int) -> pl.Series:
    """Return times from groups of a pattern; a day that does not exist, as 30 February, is null.

    Args:
        text: cells.
        pattern: with a group for each part.
        groups: of year, month and day.
        clock: group of the hour; minute, second and AM or PM follow.
    """
    cell = pl.col("text")
    year, month, day = (cell.str.extract(pattern, group).cast(pl.Int32) for group in groups)
    hour, minute, second = (cell.str.extract(pattern, clock + n).cast(pl.Int32).fill_null(0) for n in range(3))
    half = cell.str.extract(pattern, clock + 3).str.to_lowercase()
    full = pl.when(year < PIVOT).then(year + 2000).when(year < 100).then(year + 1900).otherwise(year)
    later = pl.when((half == "pm") & (hour < 12)).then(hour + 12)
    clocked = later.when((half == "am") & (hour == 12)).then(0).otherwise(hour)
    # Written and read again, because a day that does not exist is an error to pl.datetime and a null to a parser.
    stamp = pl.format("{}-{}-{} {}:{}:{}", full, month, day, clocked, minute, second)
    parsed = stamp.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False)
    return pl.DataFrame({"text": text}).select(parsed.alias("time"))["time"]


def _day_is_first(table: Table, text: pl.Series) -> bool:
    """Return whether DD/MM is written and not MM/DD, by numbers above 12; between points the day is always first."""
    first = text.str.extract(YEAR_LAST, 1).cast(pl.Int32)
    second = text.str.extract(YEAR_LAST, 3).cast(pl.Int32)
    days_first, months_first = (first > 12).fill_null(value=False), (second > 12).fill_null(value=False)
    if days_first.any() and months_first.any():
        one, other = int(days_first.arg_max() or 0), int(months_first.arg_max() or 0)
        raise DataError(
            "dates are written in two ways",
            where=table.place(max(one, other)),
            why=f"{text[one]!r} can only be DD/MM, {text[other]!r} only MM/DD",
            do="write them all in one way, as YYYY-MM-DD",
        )
    if days_first.any() or months_first.any():
        return bool(days_first.any())
    if (text.str.extract(YEAR_LAST, 2).drop_nulls() == ".").all():
        return True
    row = int(first.is_not_null().arg_max() or 0)
    raise DataError(
        "day and month of the dates cannot be told apart",
        where=table.place(row),
        why=f"no number of the column is above 12, as in {text[row]!r}",
        do="say which comes first: --set task.date_format='%d/%m/%Y' or '%m/%d/%Y'",
    )

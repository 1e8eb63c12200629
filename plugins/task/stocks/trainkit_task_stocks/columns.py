"""Columns of price files: found under their usual spellings, brought to one form."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl
from trainkit.errors import DataError
from trainkit.tables import Table, counted

from .bars import COLUMNS, OPTIONAL, PRICES, ROW, Bars, Remark
from .cells import has_decimal_commas, is_filled, to_numbers
from .days import DateFormat, read_days

# What a column is called, the likeliest first: lower case, '<>' and leading numbers gone, blanks for signs.
SPELLINGS = {
    "time": ("datetime", "date", "timestamp", "time", "day", "trade date", "trading day", "unix", "dt"),
    "open": ("open", "open price", "opening price", "o"),
    "high": ("high", "high price", "max", "h"),
    "low": ("low", "low price", "min", "l"),
    "close": ("close", "close price", "closing price", "close last", "last", "last price", "price", "c"),
    "volume": ("volume", "vol", "volume traded", "total volume", "shares traded", "tickvol", "tick volume", "v"),
    "adj_close": ("adj close", "adjclose", "adjusted close", "adj close price", "adjusted closing price"),
    "dividends": ("dividends", "dividend", "dividend amount"),
    "splits": ("stock splits", "splits", "stock split", "split", "split coefficient", "split factor"),
    "symbol": ("symbol", "ticker", "name", "instrument", "code"),
}
CLOCK_TIME = r"^\d{1,2}:\d{2}|^\d{6}$"
MOST_WORDS = 0.5


def plain(column: str) -> str:
    """Return a column's name without what writers add to it: '<OPEN>', '1. open' and 'Open' are 'open'."""
    words = re.sub(r"[^a-z0-9]+", " ", column.lower()).strip()
    return re.sub(r"^\d+ (?=\D)", "", words)


def find_columns(table: Table) -> dict[str, str]:
    """Return the table's column for each role: time, the prices, volume, and those of the others that are there.

    Raises:
        DataError: time, a price or the volume is not there.
    """
    by_name: dict[str, str] = {}
    for column in table.frame.columns:
        by_name.setdefault(plain(column), column)
    found: dict[str, str] = {}
    for role, spellings in SPELLINGS.items():
        if spelling := next((word for word in spellings if word in by_name), None):
            found[role] = by_name[spelling]
    if missing := [role for role in COLUMNS if role not in found]:
        raise DataError(
            f"there is no column of {', '.join(missing)}",
            where=table.name,
            why=f"it has {', '.join(table.frame.columns)}",
            do=f"name it as one of {', '.join(SPELLINGS[missing[0]][:3])}",
        )
    return found


def read_bars(tables: Sequence[Table], how: DateFormat | None = None) -> tuple[list[Bars], list[Remark]]:
    """Return the bars of each symbol in order of time, and what had to be undone to read them.

    A symbol is what the symbol's column says; without one each file is a symbol.

    Args:
        tables: as `trainkit.tables.read_tables` reads them.
        how: how times are to be read, where that cannot be found.

    Raises:
        DataError: a column is missing or holds no numbers, or dates cannot be read.
    """
    bars: list[Bars] = []
    remarks: list[Remark] = []
    for table in tables:
        some, said = _read_table(table, how or DateFormat())
        bars += some
        remarks += said
    return bars, remarks


def _read_table(table: Table, how: DateFormat) -> tuple[list[Bars], list[Remark]]:
    found = find_columns(table)
    remarks: list[Remark] = []
    time = read_days(table, _time_cells(table, found), how)
    comma = table.separator not in ("", ",") and has_decimal_commas([table.frame[found[name]] for name in PRICES])
    names = (*PRICES, "volume", *(name for name in OPTIONAL if name in found))
    columns = [_numbers(table, found[name], name, comma, remarks) for name in names]
    symbol = _symbols(table, found)
    frame = pl.DataFrame([time, *columns, symbol]).with_row_index(ROW)
    dateless = frame.filter(pl.col("time").is_null())[ROW].to_list()
    if dateless:
        text = f"no date can be read, as {table.frame[found['time']][dateless[0]]!r}"
        remarks.append(_remark(table, "no date", text, dateless, "left out", is_fault=True))
        frame = frame.filter(pl.col("time").is_not_null())
    parts = [frame] if frame["symbol"].n_unique() < 2 else frame.partition_by("symbol", maintain_order=True)
    bars = [_in_order(table, part, remarks) for part in parts if part.height]
    return bars, remarks


def _time_cells(table: Table, found: dict[str, str]) -> pl.Series:
    """Return the cells of time; a column of days and one of clock times beside it are joined."""
    cells = table.frame[found["time"]]
    clock = next((name for name in table.frame.columns if plain(name) == "time" and name != found["time"]), None)
    if clock is None or cells.dtype != pl.String:
        return cells
    hours = table.frame[clock].cast(pl.String)
    if not hours.str.contains(CLOCK_TIME).all() or cells.str.contains(":", literal=True).any():
        return cells
    return (cells + " " + hours).alias(cells.name)


def _numbers(table: Table, column: str, name: str, comma: bool, remarks: list[Remark]) -> pl.Series:
    cells = table.frame[column]
    numbers, written = to_numbers(cells, comma)
    if numbers.null_count() == 0 and not written.any():
        return numbers.alias(name)
    words = is_filled(cells) & numbers.is_null()
    if name in COLUMNS and words.sum() > MOST_WORDS * len(cells):
        row = int(words.arg_max() or 0)
        raise DataError(
            f"column {column!r} holds words where {name} should be",
            where=table.place(row),
            why=f"{counted(int(words.sum()), 'cell')} of {len(cells)} are no numbers, as {cells[row]!r}",
        )
    if written.any():
        rows = written.arg_true().to_list()
        text = f"{column!r} is written as {cells[rows[0]]!r}"
        done = f"read as {numbers[rows[0]]:.12g}"
        remarks.append(_remark(table, "spelling of numbers", text, rows, done))
    return numbers.fill_null(float("nan")).alias(name)


def _symbols(table: Table, found: dict[str, str]) -> pl.Series:
    own = re.sub(r"\.(csv|tsv|parquet)(\.gz)?$", "", table.name, flags=re.IGNORECASE)
    if "symbol" not in found:
        return pl.repeat(own, table.frame.height, eager=True, dtype=pl.String).alias("symbol")
    return table.frame[found["symbol"]].cast(pl.String).replace("", None).fill_null(own).alias("symbol")


def _in_order(table: Table, frame: pl.DataFrame, remarks: list[Remark]) -> Bars:
    if not frame["time"].is_sorted():
        back = (frame["time"].diff().dt.total_microseconds() < 0).fill_null(value=False)
        newest_first = back.sum() > 0.9 * (frame.height - 1)
        rule = "newest first" if newest_first else "not in order"
        text = "the newest row comes first" if newest_first else "earlier than the row before"
        rows = [] if newest_first else frame.filter(back)[ROW].to_list()
        remarks.append(_remark(table, rule, text, rows, "sorted by time"))
        frame = _sorted(frame, newest_first)
    names = [name for name in (*COLUMNS, *OPTIONAL, ROW) if name in frame.columns]
    return Bars(frame["symbol"][0], table.name, frame.select(names), table.header_lines)


def _sorted(frame: pl.DataFrame, newest_first: bool) -> pl.DataFrame:
    """Return rows by time; of those at one time the newest comes last, as it is the one that is kept."""
    turned = frame.reverse() if newest_first else frame
    return turned.sort("time", maintain_order=True)


def _remark(table: Table, rule: str, text: str, rows: Sequence[int], done: str, *, is_fault: bool = False) -> Remark:
    return Remark(rule, table.name, text, done, tuple(rows), table.header_lines, is_fault)

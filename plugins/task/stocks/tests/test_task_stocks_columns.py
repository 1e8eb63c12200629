"""Columns, dates and numbers of price files, however they are written."""

from __future__ import annotations

from datetime import date, datetime

import numpy as np
import polars as pl
import pytest
from trainkit.errors import DataError
from trainkit.tables import Table, read_tables
from trainkit_task_stocks.bars import PRICES
from trainkit_task_stocks.columns import find_columns, plain, read_bars
from trainkit_task_stocks.days import DateFormat

ROWS = [("10", "11", "9", "10.5", "100"), ("10.5", "12", "10", "11", "200"), ("11", "11.5", "10", "10", "300")]
ISO = ("2024-01-02", "2024-01-03", "2024-01-04")
DAYS = [date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4)]


def table_of(header, days=ISO, rows=ROWS, separator=",", name="A.csv"):
    lines = [(day, *row) for day, row in zip(days, rows, strict=True)]
    frame = pl.DataFrame(lines, schema=dict.fromkeys(header, pl.String), orient="row")
    return Table(name, frame, 1, separator)


def only(table, how=None):
    bars, remarks = read_bars([table], how)
    assert len(bars) == 1
    return bars[0], remarks


def days_of(bars):
    return bars.frame["time"].dt.date().to_list()


USUAL = ("Date", "Open", "High", "Low", "Close", "Volume")


@pytest.mark.parametrize(
    "header",
    [
        USUAL,
        ("date", "open", "high", "low", "close", "volume"),
        ("Datetime", "OPEN", "HIGH", "LOW", "CLOSE", "VOLUME"),
        ("timestamp", "open_price", "high_price", "low_price", "close_price", "Vol."),
        ("<DATE>", "<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<VOL>"),
        ("time", "1. open", "2. high", "3. low", "4. close", "5. volume"),
        ("Date", "Open", "High", "Low", "Price", "Vol."),
        ("Date", "Open", "High", "Low", "Close/Last", "Volume"),
    ],
)
def test_usual_spellings_are_found(header):
    bars, remarks = only(table_of(header))
    assert days_of(bars) == DAYS
    assert bars.prices()[1].tolist() == [10.5, 12.0, 10.0, 11.0]
    assert bars.volume().tolist() == [100.0, 200.0, 300.0]
    assert bars.symbol == "A"
    assert not remarks


def test_a_close_goes_before_a_price_and_the_adjusted_close_is_apart():
    table = table_of(("Date", "Open", "High", "Low", "Close", "Volume"))
    frame = table.frame.with_columns(
        pl.Series("Price", ["1", "2", "3"]),
        pl.Series("Adj Close", ["5", "6", "7"]),
        pl.Series("Stock Splits", ["0", "2", "0"]),
    )
    bars, _ = only(Table("A.csv", frame))
    assert bars.prices()[:, 3].tolist() == [10.5, 11.0, 10.0]
    assert bars.frame["adj_close"].to_list() == [5.0, 6.0, 7.0]
    assert bars.frame["splits"].to_list() == [0.0, 2.0, 0.0]
    assert "dividends" not in bars.frame.columns


def test_a_missing_column_is_named_with_what_is_there():
    table = table_of(("Date", "Open", "High", "Low", "Close", "Amount"))
    with pytest.raises(DataError, match=r"no column of volume[\s\S]*A.csv[\s\S]*Open, High, Low, Close, Amount"):
        find_columns(table)


def test_plain_names():
    assert [plain(name) for name in ("<TICKVOL>", "5. adjusted close", "Adj_Close", " Vol. ")] == [
        "tickvol",
        "adjusted close",
        "adj close",
        "vol",
    ]


def test_symbols_of_a_column_are_bars_of_their_own_and_keep_their_rows():
    frame = table_of(USUAL).frame.with_columns(pl.Series("Ticker", ["X", "Y", "X"]))
    bars, _ = read_bars([Table("A.csv", frame)])
    assert [(some.symbol, some.frame["row"].to_list()) for some in bars] == [("X", [0, 2]), ("Y", [1])]


@pytest.mark.parametrize(
    "days",
    [
        ("2024-01-02", "2024-01-03", "2024-01-04"),
        ("2024/01/02", "2024/01/03", "2024/01/04"),
        ("2024.01.02", "2024.01.03", "2024.01.04"),
        ("20240102", "20240103", "20240104"),
        ("02.01.2024", "03.01.2024", "04.01.2024"),
        ("Jan 02, 2024", "Jan 03, 2024", "Jan 04, 2024"),
        ("02-Jan-2024", "03-Jan-2024", "04-Jan-2024"),
        ("2024-01-02 00:00:00+01:00", "2024-01-03 00:00:00+01:00", "2024-01-04T00:00:00+01:00"),
        ("2024-01-02 00:00:00-05:00", "2024-01-03 00:00:00-05:00", "2024-01-04 15:58:02-05:00"),
        ("2024-01-02T00:00:00Z", "2024-01-03T00:00:00Z", "2024-01-04T00:00:00Z"),
        ("1704153600", "1704240000", "1704326400"),
        ("1704153600000", "1704240000000", "1704326400000"),
    ],
)
def test_days_are_read_as_they_are_written(days):
    bars, _ = only(table_of(USUAL, days))
    assert days_of(bars) == DAYS
    assert bars.times().tolist() == [int(np.datetime64(day, "us").astype(np.int64)) for day in ISO]


@pytest.mark.parametrize(
    ("days", "found"),
    [
        (("01/12/2024", "01/15/2024", "01/16/2024"), (date(2024, 1, 12), date(2024, 1, 15), date(2024, 1, 16))),
        (("12/01/2024", "15/01/2024", "16/01/2024"), (date(2024, 1, 12), date(2024, 1, 15), date(2024, 1, 16))),
        (("01/12/98", "01/15/98", "01/16/98"), (date(1998, 1, 12), date(1998, 1, 15), date(1998, 1, 16))),
        (("1/2/24", "1/3/24", "1/16/24"), (date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 16))),
    ],
)
def test_day_and_month_are_told_apart_by_the_whole_column(days, found):
    bars, _ = only(table_of(USUAL, days))
    assert days_of(bars) == list(found)


AMBIGUOUS = ("01/02/2024", "01/03/2024", "01/04/2024")


def test_day_and_month_that_nothing_tells_apart_need_the_option():
    with pytest.raises(DataError, match=r"cannot be told apart[\s\S]*A.csv:2[\s\S]*task.date_format"):
        read_bars([table_of(USUAL, AMBIGUOUS)])
    assert days_of(only(table_of(USUAL, AMBIGUOUS), DateFormat("%m/%d/%Y"))[0]) == DAYS
    european = only(table_of(USUAL, AMBIGUOUS), DateFormat("%d/%m/%Y"))[0]
    assert days_of(european)[1] == date(2024, 3, 1)


def test_dates_written_in_two_ways_are_refused_with_both():
    with pytest.raises(DataError, match=r"two ways[\s\S]*'13/01/2024' can only be DD/MM, '01/14/2024' only MM/DD"):
        read_bars([table_of(USUAL, ("13/01/2024", "01/14/2024", "01/02/2024"))])


def test_summer_time_moves_no_day():
    days = [f"2024-03-{day:02} 00:00:00{'-05:00' if day < 10 else '-04:00'}" for day in range(4, 16)]
    bars, _ = only(table_of(USUAL, days, [ROWS[0]] * len(days)))
    assert days_of(bars) == [date(2024, 3, day) for day in range(4, 16)]
    assert (np.diff(bars.times()) == 86_400_000_000).all()


def test_a_zone_brings_offsets_and_numbers_to_its_clock():
    days = ("2024-01-01T15:00:00Z", "2024-01-02T15:00:00Z", "2024-01-03T15:00:00Z")
    assert days_of(only(table_of(USUAL, days), DateFormat(zone="Asia/Tokyo"))[0]) == DAYS
    numbers = ("1704121200", "1704207600", "1704294000")
    assert days_of(only(table_of(USUAL, numbers), DateFormat(zone="Asia/Tokyo"))[0]) == DAYS
    with pytest.raises(DataError, match="no time zone 'Tokio'"):
        read_bars([table_of(USUAL, days)], DateFormat(zone="Tokio"))


def test_bars_within_a_day_keep_their_clock_joined_from_two_columns():
    days = ("2024-01-02 09:30", "2024-01-02 09:35", "2024-01-02 09:40")
    joined, _ = only(table_of(USUAL, days))
    frame = table_of(USUAL, ["2024-01-02"] * 3).frame.with_columns(pl.Series("Time", ["09:30", "09:35", "09:40"]))
    apart, _ = only(Table("A.csv", frame))
    assert (
        joined.frame["time"].to_list()
        == apart.frame["time"].to_list()
        == [datetime(2024, 1, 2, 9, m) for m in (30, 35, 40)]
    )


def test_afternoon_hours():
    bars, _ = only(table_of(USUAL, ("01/15/2024 12:05 AM", "01/15/2024 11:00 AM", "01/15/2024 1:30 PM")))
    assert [time.hour for time in bars.frame["time"].to_list()] == [0, 11, 13]


def test_rows_without_a_date_are_left_out_and_told():
    days = [f"2024-01-{day:02}" for day in range(1, 31)]
    days[3], days[7], days[8] = "", "2024-02-30", ""
    bars, remarks = only(table_of(USUAL, days, [ROWS[0]] * 30))
    assert len(bars) == 27
    assert [(r.rule, r.lines, r.done, r.is_fault) for r in remarks] == [("no date", (5, 9, 10), "left out", True)]


def test_a_column_that_holds_no_dates_is_refused():
    with pytest.raises(DataError, match=r"2 of 3 cells of column 'Date' are no dates[\s\S]*A.csv:2"):
        read_bars([table_of(USUAL, ("soon", "later", "2024-01-04"))])
    with pytest.raises(DataError, match="numbers that are no times, as 2"):
        read_bars([table_of(USUAL, ("1", "2", "3"))])


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("$1,234.50", 1234.5),
        ("€ 1234.50", 1234.5),
        ("USD 1,234.50", 1234.5),
        ("1 234.50", 1234.5),
        ("1'234.50", 1234.5),
        ("1234.50 GBp", 1234.5),
        ("1,234,567", 1234567.0),
    ],
)
def test_signs_and_thousands_are_undone_counted_and_told(cell, number):
    rows = [(cell, "9999999", "1", "2", "96.71M"), *ROWS[1:]]
    bars, remarks = only(table_of(USUAL, rows=rows))
    assert bars.prices()[0, 0] == number
    assert bars.volume()[0] == pytest.approx(96.71e6)
    assert [(r.rule, r.lines, r.is_fault) for r in remarks] == [("spelling of numbers", (2,), False)] * 2
    assert repr(cell) in remarks[0].text


def test_decimal_commas_beside_semicolons():
    rows = [("1.234,5", "1.240", "1.200,25", "1.230", "1.000"), ("1.235,0", "1.240", "1.200", "1.230,5", "2.000")]
    bars, _ = only(table_of(USUAL, ISO[:2], rows, ";"))
    assert bars.prices()[0].tolist() == [1234.5, 1240.0, 1200.25, 1230.0]
    assert bars.volume().tolist() == [1000.0, 2000.0]


def test_decimal_points_beside_semicolons_stay():
    bars, _ = only(table_of(USUAL, separator=";"))
    assert bars.prices()[0].tolist() == [10.0, 11.0, 9.0, 10.5]


def test_cells_that_are_no_numbers_are_missing_and_a_column_of_words_is_refused():
    rows = [("n/a", "oops", "9", "10.5", "-"), *ROWS[1:]]
    bars, _ = only(table_of(USUAL, rows=rows))
    assert np.isnan(bars.prices()[0]).tolist() == [True, True, False, False]
    assert np.isnan(bars.volume()[0])
    with pytest.raises(DataError, match=r"'Open' holds words where open should be[\s\S]*A.csv:2"):
        read_bars([table_of(USUAL, rows=[("buy", *row[1:]) for row in ROWS])])


def test_newest_first_is_sorted_and_told_and_rows_remember_their_lines():
    bars, remarks = only(table_of(USUAL, ISO[::-1]))
    assert days_of(bars) == DAYS
    assert bars.frame["row"].to_list() == [2, 1, 0]
    assert [(r.rule, r.rows, r.is_fault) for r in remarks] == [("newest first", (), False)]


def test_one_row_out_of_order_is_told_with_its_line():
    days = ("2024-01-02", "2024-01-04", "2024-01-03")
    bars, remarks = only(table_of(USUAL, days))
    assert days_of(bars) == DAYS
    assert [(r.rule, r.lines) for r in remarks] == [("not in order", (4,))]


def test_parquet_keeps_its_types_and_the_clock_of_its_zone(tmp_path):
    times = pl.Series("Date", [datetime(2024, 1, day, 5) for day in (2, 3, 4)]).dt.replace_time_zone("UTC")
    columns = {name: [float(row[n]) for row in ROWS] for n, name in enumerate(USUAL[1:])}
    frame = pl.DataFrame({"Date": times.dt.convert_time_zone("America/New_York"), **columns})
    frame.write_parquet(tmp_path / "A.parquet")
    bars, remarks = only(read_tables([tmp_path / "A.parquet"])[0][0])
    assert days_of(bars) == DAYS
    assert bars.times()[0] % 86_400_000_000 == 0
    assert bars.frame.select(PRICES).dtypes == [pl.Float64] * 4
    assert not remarks

"""What is read: separators, times, columns; what is repaired is told, what cannot be is refused with its place."""

from __future__ import annotations

import datetime as dt
import gzip
import zoneinfo
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from trainkit.errors import DataError, UsageError
from trainkit_task_series.reading import microseconds
from trainkit_task_series.task import SeriesTask

HERE = Path(__file__).parent
BEGIN = dt.datetime(2026, 1, 1)
SIZE = {"context": 48, "horizon": 12}


def iso(i):
    return (BEGIN + dt.timedelta(minutes=5 * i)).isoformat()


def read(path, **options):
    task = SeriesTask(**SIZE, **options)
    splits = task.read(path, 0)
    task.fit(splits.train)
    return task, splits


def values_of(path, **options):
    return read(path, **options)[0].found.panel.values[:, 0]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", ";\t"])
def test_separators_are_found(csv, separator):
    assert np.allclose(values_of(csv(separator=separator)), values_of(csv()))


def test_a_byte_order_mark_and_a_packed_file_change_nothing(csv, tmp_path):
    plain = csv()
    packed = tmp_path / "b.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    expected = values_of(plain)
    assert np.array_equal(values_of(packed), expected)
    assert np.array_equal(values_of(csv(before="\ufeff")), expected)


def test_parquet_is_read_as_csv_is(csv, tmp_path):
    path = csv()
    pl.read_csv(path, try_parse_dates=True).write_parquet(tmp_path / "b.parquet")
    csv_task, parquet_task = read(path)[0], read(tmp_path / "b.parquet")[0]
    assert np.allclose(csv_task.found.panel.values, parquet_task.found.panel.values)
    assert np.array_equal(csv_task.found.panel.times, parquet_task.found.panel.times)


@pytest.mark.parametrize(
    "time",
    [
        lambda i: iso(i).replace("T", " "),
        lambda i: iso(i) + "Z",
        lambda i: iso(i) + "+00:00",
        lambda i: str(1767225600 + 300 * i),
        lambda i: str(1000 * (1767225600 + 300 * i)),
        lambda i: str(1_000_000_000 * (1767225600 + 300 * i)),
    ],
    ids=["blank", "Z", "offset", "seconds", "milliseconds", "nanoseconds"],
)
def test_times_are_understood_however_they_are_written(csv, time):
    found = read(csv(time=time))[0].found
    assert found.facts()["first time"] == "2026-01-01T00:00:00"
    assert found.facts()["step"] == "5 minutes"
    assert found.findings == ()


def test_a_pattern_and_a_zone_can_be_given(csv):
    path = csv(time=lambda i: (BEGIN + dt.timedelta(minutes=5 * i)).strftime("%d.%m.%Y %H:%M"))
    found = read(path, time_format="%d.%m.%Y %H:%M", time_zone="Europe/Amsterdam")[0].found
    assert found.facts()["first time"] == "2025-12-31T23:00:00"
    with pytest.raises(DataError, match="no time zone 'Mars/Base'"):
        read(path, time_format="%d.%m.%Y %H:%M", time_zone="Mars/Base")


def test_the_hour_that_comes_twice_is_told(csv):
    def time(i):
        return (dt.datetime(2026, 10, 24, 12) + dt.timedelta(minutes=5 * i)).isoformat()

    told = [item.text for item in read(csv(time=time), time_zone="Europe/Amsterdam")[0].found.findings]
    assert "12 times of Europe/Amsterdam that came twice, as the clock went back: taken for the first" in told


REPAIRED = {
    "unit of time": (
        {"head": "time [ms],load", "time": lambda i: str(1767225600 + 300 * i)},
        "a.csv: column 'time [ms]' says ms, and its numbers are seconds since 1970 (about 2026-01-01)",
    ),
    "mixed zones": (
        {"time": lambda i: iso(i) + "+01:00" if i < 200 else iso(i + 12) + "+02:00"},
        "a.csv: column 'time' has times of several offsets (+0100, +0200): all were taken to UTC",
    ),
    "huge": (
        {"value": lambda i: "1e300" if i == 50 else str(i % 7)},
        "a.csv:52: column 'load': 1 cell without a number, the first '1e300': taken as missing",
    ),
    "no number": (
        {"value": lambda i: "oops" if i == 37 else str(i % 7)},
        "a.csv:39: column 'load': 1 cell without a number, the first 'oops': taken as missing",
    ),
    "infinite": (
        {"value": lambda i: "inf" if i in (50, 60) else str(i % 7)},
        "a.csv:52: column 'load': 2 cells without a number, the first 'inf': taken as missing",
    ),
    "decimal comma": (
        {"separator": ";", "value": lambda i: f"{i % 7},5"},
        "a.csv: column 'load': 400 numbers with a decimal comma: read as such",
    ),
    "unreadable time": (
        {"time": lambda i: "soon" if i == 3 else iso(i)},
        "a.csv:5: 1 row without a readable time, the first 'soon': left out",
    ),
    "duplicate": (
        {"time": lambda i: iso(i - (i > 100))},
        "a at 2026-01-01T08:20:00: 1 row with the time of another: the last one is kept",
    ),
    "not in order": (
        {"time": lambda i: iso((i * 37) % 400)},
        "a: 36 rows earlier than the row before: sorted by time",
    ),
    "gap": (
        {"time": lambda i: iso(i + 3 * (i > 100))},
        "a at 2026-01-01T08:20:00: 1 gap of at most 12 steps, 3 steps in all: taken as missing",
    ),
    "long gap": (
        {"time": lambda i: iso(i + 300 * (i > 250))},
        "a at 2026-01-01T20:50:00: a gap of 1.042 days: no window crosses it",
    ),
}


def test_the_hour_that_is_skipped_is_left_out_and_told(csv):
    def time(i):
        return (dt.datetime(2026, 3, 28, 12) + dt.timedelta(minutes=5 * i)).isoformat()

    task, splits = read(csv(time=time), time_zone="Europe/Amsterdam")
    message = "a.csv:170: 12 times that Europe/Amsterdam skipped, as the clock went forward: left out"
    assert message in splits.warnings
    # In UTC nothing is missing: the hour was none.
    assert len(task.found.panel) == 388


def test_local_times_without_their_zone_lose_the_hour_that_comes_twice_and_it_is_told(csv):
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")

    def time(i):
        moment = dt.datetime(2026, 10, 24, 12, tzinfo=dt.UTC) + dt.timedelta(minutes=5 * i)
        return moment.astimezone(berlin).replace(tzinfo=None).isoformat()

    warnings = read(csv(time=time))[1].warnings
    assert "a: 1 row earlier than the row before: sorted by time" in warnings
    assert "a at 2026-10-25T02:00:00: 12 rows with the time of another: the last one is kept" in warnings


@pytest.mark.parametrize("role", ["known", "observed"])
def test_inputs_that_are_missing_are_counted(tmp_path, role):
    path = tmp_path / "a.csv"
    path.write_text(
        "\n".join(["time,load,plan", *(f"{iso(i)},{i % 7},{'' if i % 10 == 4 else i}" for i in range(400))])
    )
    task, splits = read(path, targets=("load",), **{role: ("plan",)})
    assert "a.csv:6: input 'plan' is missing in 40 rows: the mean stands for it" in splits.warnings
    # The mean is 0, once scaled.
    assert task.found.windows["train"].store.rows[4, 1] == 0


def test_series_that_are_too_short_are_told(tmp_path):
    rows = [f"{iso(i)},{i % 7},{host}" for host, size in (("long", 400), ("short", 59)) for i in range(size)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["time,load,host", *rows]))
    splits = read(path)[1]
    assert "short: no window in 1 of 2 series: no 60 steps without a long gap" in splits.warnings


def test_a_column_without_any_number_is_refused_if_it_is_named(csv):
    with pytest.raises(DataError, match="no target has a single number"):
        read(csv(value=lambda i: "NaN"), targets=("load",))
    assert read(csv(value=lambda i: "5"), targets=("load",))[0].learned.scaling.scale[0, 0] == 1


def test_a_fact_that_changes_is_told(tmp_path):
    rows = [f"{iso(i)},{i % 7},{4 if i < 300 else 8}" for i in range(400)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["time,load,memory", *rows]))
    splits = read(path, targets=("load",), statics=("memory",))[1]
    assert "a.csv: static 'memory' changes in 1 series (a): the first value counts" in splits.warnings


@pytest.mark.parametrize("case", REPAIRED)
def test_what_is_repaired_is_counted_and_has_its_place(csv, case):
    written, message = REPAIRED[case]
    task, splits = read(csv(**written))
    assert message in splits.warnings
    assert task.inspect(csv(**written)).findings == task.found.findings
    batch = splits.train.__getitems__(list(range(len(splits.train))))
    assert batch["past_values"].isfinite().all()


REFUSED = {
    "one row": ({"rows": 1}, "one row is no series"),
    "two rows": ({"rows": 2}, "no window to train on"),
    "no row": ({"rows": 0}, "the table has no row"),
    "constant": ({"value": lambda i: "5"}, "as it never changes: load"),
    "all missing": ({"value": lambda i: "NaN"}, "as it is empty: load"),
    "words": ({"value": lambda i: "high"}, "as it holds words: load"),
    "blanks": ({"separator": " "}, "the file has a single column"),
    "row numbers": ({"time": str}, "numbers that are no times, as 199.5"),
    "no times": ({"time": lambda i: "soon"}, "400 of 400 cells are no times"),
    "days first": (
        {"time": lambda i: (BEGIN + dt.timedelta(minutes=5 * i)).strftime("%d.%m.%Y %H:%M")},
        r"a.csv:2\n.*'01.01.2026 00:00' is neither ISO 8601(.|\n)*task.time_format=",
    ),
    "two units of time": (
        {"time": lambda i: str((1767225600 + 300 * i) * (1000 if i >= 200 else 1))},
        "'1767225600' is no time from 1980 to 2100 in milliseconds since 1970",
    ),
    "another mark in the header": (
        {"head": "time;load"},
        "different marks\n  where: a.csv:1\n  why:   the header by ';', the rows by ','",
    ),
    "no header": ({"head": "2026-01-01T00:00:00,1.5"}, r"no header\n  where: a.csv:1"),
    "no header, numbers": ({"head": "1767225600,1.5"}, r"no header\n  where: a.csv:1"),
    "UTF-16": ({"encoding": "utf-16"}, "not written in UTF-8\n  where: a.csv\n(.|\n)*iconv -f UTF-16"),
    "Latin-1 in the header": (
        {"head": "time,°C", "encoding": "latin-1"},
        "not written in UTF-8\n  where: a.csv:1\n  why:   byte 0xb0",
    ),
    "Latin-1 far below": (
        {"rows": 6000, "value": lambda i: "ü" if i == 5500 else str(i), "encoding": "latin-1"},
        "not written in UTF-8\n  where: a.csv:5502\n  why:   byte 0xfc",
    ),
    "with and without zone": ({"time": lambda i: iso(i) + "Z" * (i % 2)}, "with a zone and times without"),
    "too many cells": (
        {"after": "2026-01-05,1,2,3\n"},
        "more cells than the header\n  where: a.csv:402\n  why:   4 cells, and 2 columns",
    ),
    "one name twice": ({"head": "time,time"}, "two columns are named 'time'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused(csv, case):
    written, match = REFUSED[case]
    with pytest.raises(DataError, match=match):
        read(csv(**written))


def test_empty_and_foreign_files_are_refused(tmp_path):
    empty = tmp_path / "a.csv"
    empty.write_text("")
    with pytest.raises(DataError, match="the file is empty"):
        read(empty)
    empty.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(DataError, match="the file is no text"):
        read(empty)
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(b"time,load\n" + b"2026-01-01,1\n" * 9999)[:80])
    with pytest.raises(DataError, match=r"the file cannot be read\n  where: a.csv.gz"):
        read(packed)
    (tmp_path / "b.parquet").write_text("time,load\n")
    with pytest.raises(DataError, match="the file cannot be read"):
        read(tmp_path / "b.parquet")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").write_text("hello")
    with pytest.raises(DataError, match="the folder has no table"):
        read(tmp_path / "words")


def test_a_target_of_words_is_refused_by_its_place(csv):
    with pytest.raises(DataError, match=r"column 'load' holds words(.|\n)*a.csv:2"):
        read(csv(value=lambda i: "high"), targets=("load",))


def test_a_column_that_is_not_there_is_named_with_the_nearest(csv):
    with pytest.raises(DataError, match="no column 'laod'; did you mean 'load'"):
        read(csv(), targets=("laod",))
    with pytest.raises(DataError, match="has two roles"):
        read(csv(), targets=("load",), known=("load",))


def test_the_published_files_are_read_as_they_are():
    found = SeriesTask(**SIZE).inspect(HERE / "data" / "bitbrains")
    assert found.facts["series"] == 2
    assert found.facts["step"] == "5 minutes"
    rules = {finding.rule for finding in found.findings}
    assert {"unit of time", "column", "other file"} <= rules
    assert not [finding for finding in found.findings if finding.is_fault]
    assert "CPU usage [%]" in str(found.facts["columns"])


def test_a_file_for_each_series_or_a_column_of_names(csv, tmp_path):
    for name in ("one", "two"):
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / "many" / f"{name}.csv").write_text(csv().read_text())
    assert read(tmp_path / "many")[0].found.panel.names == ("one", "two")
    rows = csv(rows=300).read_text().splitlines()[1:]
    lines = [f"{row},{host}" for row in rows for host in ("x", "y")]
    together = tmp_path / "together.csv"
    together.write_text("\n".join(["time,load,host", *lines]))
    task, splits = read(together)
    assert task.found.schema.series == "host"
    assert task.found.panel.names == ("x", "y")
    batch = splits.train.__getitems__(list(range(len(splits.train))))
    assert set(batch["series"].tolist()) == {0, 1}


def test_statics_are_words_or_numbers(tmp_path):
    rows = [f"{iso(i)},{i % 7},{host},{cores},{kind}" for host, cores, kind in (("x", 2, "db"), ("y", 4, "web"))
            for i in range(200)]  # fmt: skip
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["time,load,host,cores,kind", *rows]))
    task, splits = read(path, targets=("load",), statics=("kind", "cores", "series"))
    batch = splits.train.__getitems__([0, len(splits.train) - 1])
    assert batch["static_categorical_features"].tolist() == [[1, 1], [2, 2]]
    assert batch["static_real_features"].tolist() == [[-1.0], [1.0]]
    assert task.learned.static_categories == (3, 3)


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("1.5h", 5400), ("1d", 86400)])
def test_steps_are_written_with_their_unit(text, seconds):
    assert microseconds(text) == seconds * 1_000_000


def test_what_is_no_step_is_refused():
    for text in ("5", "m", "0s"):
        with pytest.raises(UsageError, match="is no step"):
            microseconds(text)

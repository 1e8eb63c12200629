"""Rows of all tables together: series, time, numbers, and what stays the same within a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import polars as pl
from trainkit.contracts import Finding
from trainkit.errors import DataError
from trainkit.tables import Table, counted, listed

from .schema import FILE_SERIES, Schema, filled, numbers_of
from .times import MISSING, TimeFormat, Times, read_times

Numbers = np.ndarray[tuple[int, int], np.dtype[np.float64]]
Static = str | float | None


@dataclass(frozen=True)
class Rows:
    """Hold rows in the order in which they were read.

    Args:
        names: of the series.
        series: [R] number of each row's series.
        times: [R] microseconds since 1970.
        values: [R, V] numbers by the schema's order, NaN where none was measured.
        statics: for each series its statics, in the schema's order.
    """

    names: tuple[str, ...]
    series: np.ndarray[tuple[int], np.dtype[np.int64]]
    times: Times
    values: Numbers
    statics: tuple[tuple[Static, ...], ...]


def rows_of(
    tables: Sequence[Table], schema: Schema, how: TimeFormat, optional: Sequence[str] = ()
) -> tuple[Rows, list[Finding]]:
    """Return the rows of tables that have a time and a series.

    Args:
        tables: what was read.
        schema: what the columns are.
        how: how times are read.
        optional: columns of numbers that need not be there.
    """
    findings: list[Finding] = []
    names: list[str] = []
    numbers: dict[str, int] = {}
    parts: list[tuple[np.ndarray, Times, np.ndarray]] = []
    statics: dict[str, list[Static]] = {}
    stems = _file_names(tables)
    for table, stem in zip(tables, stems, strict=True):
        times, told = read_times(table, schema.time, how)
        values, more = _values(table, schema, optional)
        findings += [*told, *more]
        labels = _labels(table, schema, stem)
        unique = labels.drop_nulls().unique(maintain_order=True).to_list()
        for name in unique:
            if name not in numbers:
                numbers[name] = len(names)
                names.append(name)
        codes = labels.replace_strict(unique, [numbers[name] for name in unique], return_dtype=pl.Int64, default=None)
        there = (times != MISSING) & codes.is_not_null().to_numpy()
        if nameless := int(codes.is_null().sum()):
            row = int(codes.is_null().arg_max() or 0)
            text = f"{counted(nameless, 'row')} without the name of a series: left out"
            findings.append(Finding("no series", table.place(row), text, is_fault=False))
        parts.append((codes.fill_null(0).to_numpy()[there], times[there], values[there]))
        findings += _gather_statics(table, labels, schema, statics)
    series, all_times, all_values = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    if not len(all_times):
        raise DataError("no row has a time", where=tables[0].name)
    kept = tuple(tuple(statics.get(name, [None] * len(schema.statics))) for name in names)
    return Rows(tuple(names), series.astype(np.int64), all_times, all_values, kept), findings


def _file_names(tables: Sequence[Table]) -> list[str]:
    """Return a name for each file: without its folder and suffix, if that tells all apart."""
    bare = [table.name.removesuffix(".gz").rpartition(".")[0] for table in tables]
    short = [PurePosixPath(name).name for name in bare]
    return short if len(set(short)) == len(short) else bare


def _labels(table: Table, schema: Schema, stem: str) -> pl.Series:
    if not schema.series:
        return pl.Series([stem], dtype=pl.String).new_from_index(0, table.frame.height)
    labels = table.frame[schema.series].cast(pl.String)
    return pl.select(pl.when(labels != "").then(labels)).to_series()


def _values(table: Table, schema: Schema, optional: Sequence[str]) -> tuple[np.ndarray, list[Finding]]:
    findings: list[Finding] = []
    columns = []
    for name in schema.numbers:
        if name not in table.frame.columns and name in optional:
            columns.append(np.full(table.frame.height, np.nan))
            continue
        cells = table.frame[name]
        (numbers, commas), written = numbers_of(table, name), filled(cells)
        if commas:
            text = f"column {name!r}: {counted(commas, 'number')} with a decimal comma: read as such"
            findings.append(Finding("decimal comma", table.name, text, is_fault=False))
        wrong = written & numbers.is_null()
        count = int(wrong.sum())
        if count:
            row = int(wrong.arg_max() or 0)
            if 2 * count > int(written.sum()):
                raise DataError(
                    f"column {name!r} holds words: it cannot be forecast or computed with",
                    where=table.place(row),
                    why=f"{cells[row]!r} is no number, and {count} of {int(written.sum())} cells are none",
                    do="take another column, or name this one in task.statics",
                )
            first = str(cells[row])
            text = f"column {name!r}: {counted(count, 'cell')} without a number, the first {first!r}: taken as missing"
            findings.append(Finding("no number", table.place(row), text, is_fault=False))
        inputs = name in (*schema.observed, *schema.known)
        if inputs and (missing := int(numbers.is_null().sum())):
            row = int(numbers.is_null().arg_max() or 0)
            text = f"input {name!r} is missing in {counted(missing, 'row')}: the mean stands for it"
            findings.append(Finding("missing input", table.place(row), text, is_fault=False))
        columns.append(numbers.to_numpy().astype(np.float64))
    return np.stack(columns, axis=1), findings


def _fact(table: Table, name: str) -> pl.Series:
    """Return a column as numbers if all that is written in it is such, else as words."""
    numbers, _ = numbers_of(table, name)
    written = filled(table.frame[name])
    if not (written & numbers.is_null()).any():
        return numbers
    return pl.select(pl.when(written).then(table.frame[name].cast(pl.String))).to_series()


def _gather_statics(table: Table, labels: pl.Series, schema: Schema, statics: dict[str, list[Static]]) -> list[Finding]:
    """Take down the first value of each static of each series; tell of those that change."""
    if not schema.statics:
        return []
    findings = []
    frame = pl.DataFrame({"label": labels})
    for place, name in enumerate(schema.statics):
        cells = labels if name in (FILE_SERIES, schema.series) else _fact(table, name)
        by_series = frame.with_columns(cell=cells).drop_nulls("label").group_by("label", maintain_order=True)
        facts = by_series.agg(pl.col("cell").drop_nulls().first(), pl.col("cell").n_unique().alias("kinds"))
        changing = []
        for label, value, kinds in facts.iter_rows():
            mine = statics.setdefault(label, [None] * len(schema.statics))
            if mine[place] is None:
                mine[place] = value if isinstance(value, str) or value is None else float(value)
            if kinds > 1:
                changing.append(label)
        if changing:
            text = f"static {name!r} changes in {len(changing)} series ({listed(changing)}): the first value counts"
            findings.append(Finding("changing static", table.name, text, is_fault=False))
    return findings

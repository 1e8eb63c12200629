"""The task 'servers': series whose columns are metrics of servers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import torch
from torch import Tensor
from trainkit.contracts import Batch, Finding
from trainkit.derived import BaseTask, DerivedTask
from trainkit.tables import Table, counted, read_tables

from .metrics import UNITS, Ways, found, known

BASE = {
    "use": "series",
    "statics": ("series",),
    "context": 288,
    "horizon": 96,
    "hidden": 32,
    "heads": 8,
    "dropout": 0.15,
    "stride": 4,
    "eval_stride": 24,
    "scaling": "asinh",
}
FULL = 100.0


class ServersTask(DerivedTask):
    """Forecast what servers will do: CPU, memory, disk and network of many machines at once, with quantiles.

    Columns are known by their names, as Bitbrains, CloudWatch and their like write them, and become `cpu` and `memory`
    in percent, `disk` and `network` as the sum of both directions, and `load`; any other column of numbers stays what
    it is. Every option of the task below is one of this task, too.

    Args:
        base: the task below, which forecasts series.
        within_bounds: whether forecasts of percentages are brought to 0..100 and those of other metrics to at least 0.
    """

    def __init__(self, base: BaseTask = BASE, within_bounds: bool = True) -> None:
        super().__init__(base)
        self.base.tables = self.tables
        if within_bounds:
            self.base.bounded = bounded

    def tables(self, paths: Sequence[Path]) -> tuple[list[Table], list[Finding]]:
        """Read tables, and put the metrics of servers in place of the columns they are made of."""
        tables, findings = read_tables(paths)
        asked = self.base.reading.schema
        named = {name for name in (asked.time, asked.series, *asked.numbers, *asked.statics) if name}
        ways = [found(table.frame.columns, named) for table in tables]
        findings += told_ways(tables, ways)
        for table, way in zip(tables, ways, strict=True):
            findings += told_cells(table, way)
        return [with_metrics(table, way, named) for table, way in zip(tables, ways, strict=True)], findings


def with_metrics(table: Table, ways: Ways, asked: Collection[str]) -> Table:
    """Return a table with metrics in place of the columns they are made of.

    Args:
        table: as it was read.
        ways: to its metrics.
        asked: columns that the user named: they stay.
    """
    made = {
        name: way.make(*map(as_number, taken)).alias(name) for name, (way, taken) in ways.items() if taken != (name,)
    }
    replaced = known(table.frame.columns) - set(asked) - {name for name in ways if name not in made}
    kept = [name for name in table.frame.columns if name not in replaced and name not in made]
    return replace(table, frame=table.frame.select(*made.values(), *kept))


def told_ways(tables: Sequence[Table], ways: Sequence[Ways]) -> list[Finding]:
    """Return what metrics are made of, once for all tables where it is the same."""
    first: dict[str, tuple[str, int]] = {}
    for table, way in zip(tables, ways, strict=True):
        made = {name: taken for name, (_, taken) in way.items() if taken != (name,)}
        if text := "; ".join(f"{name} of {' and '.join(taken)}" for name, taken in made.items()):
            place, count = first.get(text, (table.name, 0))
            first[text] = place, count + 1
    return [
        Finding("metrics", place, f"{text} (in {counted(count, 'file')})", is_fault=False)
        for text, (place, count) in first.items()
    ]


def told_cells(table: Table, ways: Ways) -> list[Finding]:
    """Return where a metric's columns hold no number, and where a percentage is above 100."""
    findings = []
    taken = [name for metric, (_, names) in ways.items() for name in names if names != (metric,)]
    for name in dict.fromkeys(taken):
        cells = table.frame[name]
        wrong = cells.is_not_null() & table.frame.select(as_number(name)).to_series().is_null()
        if count := int(wrong.sum()):
            row = int(wrong.arg_max() or 0)
            text = f"column {name!r}: {counted(count, 'cell')} without a number, the first {cells[row]!r}: missing"
            findings.append(Finding("no number", table.place(row), text, is_fault=False))
    for name, (way, names) in ways.items():
        above = table.frame.select(way.make(*map(as_number, names))).to_series() if UNITS[name] == "percent" else None
        if above is not None and (count := int((above > FULL).sum())):
            row = int((above > FULL).arg_max() or 0)
            most = float(max(above.drop_nulls()))
            text = f"{name} is above 100 % in {count:,} of {counted(len(above), 'row')}, {most:.4g} at most: kept"
            findings.append(Finding("above 100 %", table.place(row), text, is_fault=False))
    return findings


def as_number(column: str) -> pl.Expr:
    """Return a column's cells as numbers, nothing where there is none."""
    return pl.col(column).cast(pl.Float64, strict=False)


def bounded(values: Tensor, batch: Batch) -> Tensor:
    """Return forecasts [B, H, T] or [B, H, T, Q] that a metric can have; what is no metric is left as it is."""
    names = batch["target_names"]
    low = [0.0 if name in UNITS else -torch.inf for name in names]
    high = [FULL if UNITS.get(name) == "percent" else torch.inf for name in names]
    shape = (len(names), *[1] * (values.ndim - 3))
    return values.clamp(values.new_tensor(low).view(shape), values.new_tensor(high).view(shape))

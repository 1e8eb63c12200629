"""From files to series on a grid: the way of all data of this task."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainkit.contracts import Finding
from trainkit.errors import UsageError
from trainkit.tables import Table

from .bars import Bars
from .grid import SECOND, Grid, find_step, other_step
from .panel import Panel, in_order, to_panel
from .rows import Rows, rows_of
from .schema import Schema, check_columns, find_schema, refound
from .times import TimeFormat

SIZES = {"s": SECOND, "m": 60 * SECOND, "min": 60 * SECOND, "h": 3_600 * SECOND, "d": 86_400 * SECOND}
Tables = Callable[[Sequence[Path]], tuple[Sequence[Table], Sequence[Finding]]]
ROW = "row"
SAMPLE = Path(__file__).parent / "sample" / "servers.csv"


@dataclass(frozen=True)
class Reading:
    """Hold how files are to be read.

    Args:
        schema: what the columns are, as far as it is asked for.
        times: how times are written.
        step: of the grid, as 5m; None to find it; `row` where each row is a step.
        max_gap: most missing steps within a segment.
    """

    schema: Schema
    times: TimeFormat
    step: str | None
    max_gap: int

    def read(self, paths: Sequence[Path], tables_of: Tables) -> tuple[Panel, Schema, list[Finding]]:
        """Return the series in files and folders, what the columns are, and all that was found out.

        Args:
            paths: files and folders.
            tables_of: what reads them.

        Raises:
            DataError: the data cannot be used.
        """
        tables, found = tables_of(paths)
        findings = list(found)
        schema, told = find_schema(tables, self.schema)
        findings += told
        rows, told = rows_of(tables, schema, self.times)
        rows, sorted_ = in_order(rows)
        step, uneven = find_step(rows, None if self.step == ROW else microseconds(self.step))
        grid = self.grid(rows, step)
        panel, gridded = to_panel(rows, grid, self.max_gap, len(schema.targets))
        return panel, schema, [*findings, *told, *sorted_, *uneven, *gridded]

    def grid(self, rows: Rows, step: int) -> Grid | Bars:
        """Return the times of the steps of rows that are in order."""
        return Bars.of(rows, step) if self.step == ROW else Grid.of(rows, step)

    def rows(self, paths: Sequence[Path], tables_of: Tables, schema: Schema, step: int) -> tuple[Rows, list[Finding]]:
        """Return the rows in files whose columns and step are known, in order, and all that was found out."""
        tables, found = tables_of(paths)
        schema, renamed = refound(tables, schema)
        check_columns(tables, schema)
        rows, told = rows_of(tables, schema, self.times)
        rows, sorted_ = in_order(rows)
        return rows, [*found, *renamed, *told, *sorted_, *other_step(rows, step)]

    def panel(self, paths: Sequence[Path], tables_of: Tables, schema: Schema, step: int) -> tuple[Panel, list[Finding]]:
        """Return the series in files whose columns and step are known, and all that was found out."""
        rows, findings = self.rows(paths, tables_of, schema, step)
        panel, gridded = to_panel(rows, self.grid(rows, step), self.max_gap, len(schema.targets))
        return panel, [*findings, *gridded]


def microseconds(step: str | None) -> int | None:
    """Return a step in microseconds; raise UsageError for what is none."""
    if step is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", step.strip())
    size = round(float(match[1]) * SIZES[match[2]]) if match else 0
    if size < 1:
        raise UsageError(
            f"task.step = {step!r} is no step", do=f"as 30s, 5m, 1h or 1d, or {ROW} where each row is a step"
        )
    return size


def usual_season(step: int, context: int) -> int:
    """Return the steps of a day, of a week where a step is a day, else 1; 1 too where they exceed the context."""
    day = 86_400 * SECOND
    season = 7 if step == day else day // step if step < day and day % step == 0 else 1
    return season if season <= context else 1

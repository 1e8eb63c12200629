"""Series on a regular grid: sorted, each time once, gaps as missing values, long gaps as ends of segments."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from trainkit.contracts import Finding
from trainkit.errors import DataError
from trainkit.tables import counted

from .bars import Bars
from .grid import Grid, Ints, duration, stamp
from .rows import Numbers, Rows, Static
from .times import Times

MOST_TOLD = 20


@dataclass(frozen=True)
class Panel:
    """Hold all series, one segment after the other, row by row.

    A segment is a stretch of a series without a long gap; windows lie within one.

    Args:
        names: of the series.
        series: [N] number of each row's series.
        first: [N] the first row of each row's segment.
        last: [N] the last row of each row's segment.
        times: [N] microseconds since 1970.
        values: [N, V] numbers, NaN where none was measured.
        statics: for each series its statics.
        grid: the times.
    """

    names: tuple[str, ...]
    series: Ints
    first: Ints
    last: Ints
    times: Times
    values: Numbers
    statics: tuple[tuple[Static, ...], ...]
    grid: Grid | Bars

    def __len__(self) -> int:
        return len(self.times)

    def fingerprint(self) -> str:
        """Return a hash of all that was read."""
        digest = hashlib.sha256(repr((self.names, self.statics, self.grid.step)).encode())
        for array in (self.series, self.times, self.values):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def in_order(rows: Rows) -> tuple[Rows, list[Finding]]:
    """Return rows sorted by series and time; those of a series stay in the order read where times are equal."""
    order = np.lexsort((rows.times, rows.series))
    by_series = np.argsort(rows.series, kind="stable")
    same = rows.series[by_series][1:] == rows.series[by_series][:-1]
    back = same & (np.diff(rows.times[by_series]) < 0)
    findings = []
    if count := int(back.sum()):
        where = rows.names[int(rows.series[by_series][1:][back][0])]
        text = f"{counted(count, 'row')} earlier than the row before: sorted by time"
        findings.append(Finding("not in order", where, text, is_fault=False))
    return Rows(rows.names, rows.series[order], rows.times[order], rows.values[order], rows.statics), findings


def to_panel(rows: Rows, grid: Grid | Bars, max_gap: int, targets: int) -> tuple[Panel, list[Finding]]:
    """Return rows on the grid, and what that changed.

    Args:
        rows: in order.
        grid: the times.
        max_gap: most missing steps within a segment.
        targets: how many of the first values are targets.
    """
    places = grid.places(rows.times, rows.series)
    findings = _uneven(rows, grid, places)
    same = rows.series[1:] == rows.series[:-1]
    repeated = same & (places[1:] == places[:-1])
    exact = same & (rows.times[1:] == rows.times[:-1])
    findings += _repeats(rows, exact, "duplicate time", "with the time of another: the last one is kept")
    findings += _repeats(
        rows, repeated & ~exact, "crowded time", f"beside another in a step of {duration(grid.step)}: the last is kept"
    )
    kept = np.concatenate([~repeated, [True]])
    series, places, values = rows.series[kept], places[kept], rows.values[kept]
    same, jump, at = series[1:] == series[:-1], np.diff(places), grid.times(places, series)
    # Of bars no place is missing between two rows: only times tell a gap.
    far = np.diff(at) > (max_gap + 1) * grid.step
    breaks = ~same | far
    findings += _gaps(rows, series, at, same & far, same & ~far & (jump > 1), jump, max_gap, grid)
    segment = np.concatenate([[0], np.cumsum(breaks)])
    begin = np.concatenate([[0], np.flatnonzero(breaks) + 1])
    end = np.concatenate([begin[1:], [len(places)]]) - 1
    lengths = places[end] - places[begin] + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    full = np.full((int(offsets[-1]), values.shape[1]), np.nan)
    full[offsets[segment] + places - places[begin][segment]] = values
    first = np.repeat(offsets[:-1], lengths)
    owner = np.repeat(series[begin], lengths)
    times = grid.times(np.repeat(places[begin], lengths) + np.arange(len(first)) - first, owner)
    panel = Panel(
        rows.names,
        owner,
        first,
        np.repeat(offsets[1:] - 1, lengths),
        times,
        full,
        rows.statics,
        grid,
    )
    if not np.isfinite(full[:, :targets]).any():
        raise DataError("no target has a single number", where=rows.names[0], do="check task.targets")
    return panel, findings


def _repeats(rows: Rows, which: np.ndarray, rule: str, text: str) -> list[Finding]:
    count = int(which.sum())
    if not count:
        return []
    row = int(which.argmax()) + 1
    place = f"{rows.names[rows.series[row]]} at {stamp(int(rows.times[row]))}"
    return [Finding(rule, place, f"{counted(count, 'row')} {text}", is_fault=False)]


def _uneven(rows: Rows, grid: Grid | Bars, places: Ints) -> list[Finding]:
    off = np.abs(rows.times - grid.times(places, rows.series))
    count = int((off > 0).sum())
    if not count:
        return []
    row = int((off > 0).argmax())
    text = f"{count:,} of {len(off):,} times off the grid, by {duration(float(off.max()))} at most: moved to it"
    place = f"{rows.names[rows.series[row]]} at {stamp(int(rows.times[row]))}"
    return [Finding("uneven step", place, text, is_fault=False)]


def _gaps(
    rows: Rows,
    series: Ints,
    times: Times,
    long: np.ndarray,
    short: np.ndarray,
    jump: np.ndarray,
    max_gap: int,
    grid: Grid | Bars,
) -> list[Finding]:
    findings = []
    if count := int(short.sum()):
        row = int(short.argmax())
        missing = counted(int((jump[short] - 1).sum()), "step")
        text = f"{counted(count, 'gap')} of at most {max_gap} steps, {missing} in all: taken as missing"
        findings.append(Finding("gap", f"{rows.names[series[row]]} at {stamp(int(times[row]))}", text, is_fault=False))
    for row in np.flatnonzero(long)[:MOST_TOLD]:
        text = f"a gap of {duration(float(times[row + 1] - times[row] - grid.step))}: no window crosses it"
        place = f"{rows.names[series[row]]} at {stamp(int(times[row]))}"
        findings.append(Finding("long gap", place, text, is_fault=False))
    rest = int(long.sum()) - MOST_TOLD
    if rest > 0:
        findings.append(
            Finding("long gap", ".", f"{counted(rest, 'more long gap')}: no window crosses one", is_fault=False)
        )
    return findings

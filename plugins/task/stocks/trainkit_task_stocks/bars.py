"""Bars: the prices of one symbol, row by row, and what rules say about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from trainkit.contracts import Finding
from trainkit.tables import counted

PRICES = ("open", "high", "low", "close")
COLUMNS = ("time", *PRICES, "volume")
OPTIONAL = ("adj_close", "dividends", "splits")
ROW = "row"

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]
Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
MOST_SHOWN = 4


@dataclass(frozen=True)
class Bars:
    """Hold the bars of one symbol.

    Args:
        symbol: whose prices they are.
        name: the file they were read from, relative to the data.
        frame: `time` (Datetime, microseconds: the exchange's wall clock), `open`, `high`, `low`, `close`, `volume` as
            Float64, NaN where no number stands; where the file has them `adj_close`, `dividends`, `splits`; `row`, the
            row of the file, from 0.
        header_lines: lines of the file before row 0; 0 where there are no lines.
    """

    symbol: str
    name: str
    frame: pl.DataFrame
    header_lines: int = 1

    def __len__(self) -> int:
        return self.frame.height

    def prices(self) -> Numbers:
        """Return [N, 4]: open, high, low, close."""
        return self.frame.select(PRICES).to_numpy().astype(np.float64)

    def volume(self) -> Numbers:
        """Return [N]: the volume."""
        return self.frame["volume"].to_numpy().astype(np.float64)

    def times(self) -> Ints:
        """Return [N]: microseconds since 1970 on the exchange's wall clock."""
        return self.frame["time"].dt.timestamp("us").to_numpy().astype(np.int64)

    def rows(self, which: Flags) -> tuple[int, ...]:
        """Return the file's rows where `which` is true."""
        return tuple(int(row) for row in self.frame[ROW].to_numpy()[which])

    def with_columns(self, columns: Sequence[pl.Series]) -> Bars:
        """Return bars with other columns in the place of those of their names."""
        return replace(self, frame=self.frame.with_columns(columns))

    def where(self, which: Flags) -> Bars:
        """Return the bars where `which` is true."""
        return replace(self, frame=self.frame.filter(pl.Series(which)))


@dataclass(frozen=True)
class Remark:
    """Hold what one rule says about one file.

    Args:
        rule: its name, as 'high below open or close'.
        name: the file, relative to the data.
        text: what is there.
        done: what was done about it: '' where nothing was.
        rows: the file's rows that it concerns, from 0; none where it is the whole file.
        header_lines: lines of the file before row 0; 0 where there are no lines.
        is_fault: whether the rows cannot be used as they are.
    """

    rule: str
    name: str
    text: str
    done: str = ""
    rows: tuple[int, ...] = ()
    header_lines: int = 1
    is_fault: bool = True

    @property
    def lines(self) -> tuple[int, ...]:
        """Return the file's lines that it concerns, from 1; rows where there are no lines."""
        return tuple(row + 1 + self.header_lines for row in self.rows)

    @property
    def place(self) -> str:
        """Return file and first line, for people."""
        if not self.rows:
            return self.name
        return f"{self.name}:{min(self.lines)}" if self.header_lines else f"{self.name}, row {min(self.lines)}"

    def finding(self) -> Finding:
        """Return it as what `trainkit validate` shows."""
        text = self.text
        if self.rows:
            noun = "line" if self.header_lines else "row"
            text = f"{counted(len(self.rows), 'row')} ({noun} {stretches(self.lines)}): {text}"
        return Finding(self.rule, self.place, text + (f"; {self.done}" if self.done else ""), self.is_fault)


def stretches(numbers: Iterable[int]) -> str:
    """Return ascending numbers as their first stretches: '3-7, 9 and 12 more'."""
    ordered = sorted(numbers)
    runs: list[list[int]] = []
    for number in ordered:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs[:MOST_SHOWN])
    more = sum(b - a + 1 for a, b in runs[MOST_SHOWN:])
    return shown + (f" and {more} more" if more else "")


def report(remarks: Sequence[Remark]) -> dict[str, dict[str, object]]:
    """Return remarks by rule as plain data for JSON: count, whether a fault, and for each file text, deed and lines."""
    by_rule: dict[str, dict[str, object]] = {}
    for rule in dict.fromkeys(remark.rule for remark in remarks):
        mine = [remark for remark in remarks if remark.rule == rule]
        by_rule[rule] = {
            "rows": sum(len(remark.rows) for remark in mine),
            "is_fault": any(remark.is_fault for remark in mine),
            "files": [
                {"file": remark.name, "text": remark.text, "done": remark.done, "lines": list(remark.lines)}
                for remark in mine
            ],
        }
    return by_rule

"""Results of a run or of an evaluation on the terminal: what holds overall, then each part; the rest is in files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from trainkit.resulttable import Table

GAP, MOST_ROWS, WIDEST = "  ", 24, 160


def print_tables(title: str, results: Mapping[str, Mapping[str, Any]], elsewhere: str, monitor: str = "") -> None:
    """Print what holds overall, then the parts of the split that says most.

    Args:
        title: of the first table.
        results: for the model and each baseline the values by tag.
        elsewhere: where the rest is, for people.
        monitor: the tag that decided which checkpoint is the best.
    """
    from trainkit.resulttable import PART, by_part, last_split, overall

    click.echo(_bold(title))
    _print(overall(results, monitor, details=False))
    tables = by_part(results, last_split(results))
    for table in tables:
        if table.group == PART:
            click.echo(_bold(f"\n{table.title}"))
            _print(table, most=MOST_ROWS, elsewhere=elsewhere)
    if rest := [table.group for table in tables if table.group != PART]:
        click.echo(f"\nby {' and '.join(dict.fromkeys(rest))}: {elsewhere}")


def print_one(title: str, table: Table) -> None:
    """Print a table under a title."""
    click.echo(_bold(title))
    _print(table)


def _print(table: Table, most: int | None = None, elsewhere: str = "") -> None:
    shown = _whole_parts(table.rows, most) if most is not None else table.rows
    heads = 2 if any(head for head, _ in table.groups) else 1
    for number, line in enumerate(lines_of(table, shown, _width())):
        click.echo(_bold(line) if number < heads else line)
    if left := sum(not label.startswith(" ") for label, _ in table.rows[len(shown) :]):
        click.echo(f"and {left} more: {elsewhere}")


def _whole_parts(rows: Sequence[tuple[str, tuple[str, ...]]], most: int) -> Sequence[tuple[str, tuple[str, ...]]]:
    """Return the first rows, no part without its baselines, one part at least."""
    starts = [place for place, (label, _) in enumerate(rows) if not label.startswith(" ")]
    ends = [*starts[1:], len(rows)]
    return rows[: max((end for end in ends if end <= most), default=ends[0] if ends else 0)]


def lines_of(table: Table, rows: Sequence[tuple[str, tuple[str, ...]]], width: int) -> list[str]:
    """Return a table as lines of at most `width` characters; columns that find no room follow below.

    Args:
        table: for its heads.
        rows: those to show.
        width: of the terminal.
    """
    labels = max((len(label) for label, _ in rows), default=0)
    groups, first = [], 0
    for head, names in table.groups:
        groups.append((head, names, first))
        first += len(names)
    blocks: list[list[tuple[str, list[str]]]] = [[]]
    room = width - labels
    for head, names, first in groups:
        columns = [[name, *(cells[first + place] for _, cells in rows)] for place, name in enumerate(names)]
        for piece in _pieces(head, columns, width - labels):
            if blocks[-1] and len(piece[0]) > room:
                blocks.append([])
                room = width - labels
            blocks[-1].append((piece[0], piece[1:]))
            room -= len(piece[0])
    lines: list[str] = []
    for block in blocks:
        if lines:
            lines.append("")
        if heads := "".join(head for head, _ in block).rstrip():
            lines.append(" " * labels + heads)
        body = [" " * labels, *(label.ljust(labels) for label, _ in rows)]
        lines += ["".join([start, *(texts[n] for _, texts in block)]).rstrip() for n, start in enumerate(body)]
    return lines


def _pieces(head: str, columns: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """Return columns under one head as lines, the head first; in several pieces where they are too wide for one."""
    widths = [max(map(len, column)) for column in columns]
    pieces: list[list[int]] = [[]]
    for place, wide in enumerate(widths):
        if pieces[-1] and sum(widths[n] + len(GAP) for n in pieces[-1]) + wide + len(GAP) > width:
            pieces.append([])
        pieces[-1].append(place)
    found = []
    for piece in pieces:
        # A long head makes its first column wider.
        lacking = len(head) + len(GAP) - sum(widths[n] + len(GAP) for n in piece)
        widths[piece[0]] += max(0, lacking)
        lines = zip(*([GAP + text.rjust(widths[n]) for text in columns[n]] for n in piece), strict=True)
        texts = ["".join(cells) for cells in lines]
        found.append([(GAP + head).rjust(len(texts[0])), *texts])
    return found


def _width() -> int:
    """Return the columns of the terminal; what is no terminal has as many as the tables need."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return WIDEST
    return min(shutil.get_terminal_size((80, 24)).columns, WIDEST)


def _bold(line: str) -> str:
    return click.style(line, bold=True) if sys.stdout.isatty() and "NO_COLOR" not in os.environ else line

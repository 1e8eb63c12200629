"""Tables: drawn by rich on a terminal, aligned text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from trainkit.api import RunResult


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are numbers, aligned to the right."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        # Without frames the table of a run with two baselines fits 80 columns; heads may break, names must not.
        table = Table(
            title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="bold"
        )
        for place, name in enumerate(header):
            table.add_column(name, justify="left" if place == 0 else "right", no_wrap=place == 0, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    click.echo(title)
    for row in [header, *rows]:
        cells = [
            f"{row[0]:<{widths[0]}}",
            *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        click.echo("  " + "  ".join(cells).rstrip())


def print_results(result: RunResult) -> None:
    """Print the final tables: the model on every split, the trivial baselines beside it."""
    from trainkit.report import duration, forecast_text

    from .results import print_tables

    summary = result.summary
    if "runs" in summary:
        print_folds(result)
    elif summary["results"]:
        weights = "last weights" if summary["best_step"] is None else "best checkpoint"
        title = f"results ({weights}; trivial baselines beside it)"
        print_tables(title, summary["results"], f"see {result.directory}/report.html", summary["monitor"])
    if forecast := forecast_text(summary):
        click.echo(f"time: {duration(summary['seconds'])}{forecast}")
    click.echo(f"run directory: {result.directory}")


def print_folds(result: RunResult) -> None:
    """Print what a cross-validation came to: the figures by fold, and the final model on the test."""
    from trainkit.folds.table import INTERVAL, fold_table, in_words

    from .results import print_one, print_tables

    summary = result.summary
    table = fold_table(summary, details=False)
    if table.rows:
        print_one("validation by fold (trivial baselines beside it)", table)
    if words := in_words(summary):
        click.echo(f"{words}\n{INTERVAL}\n")
    test = {
        who: {tag: value for tag, value in rows.items() if tag.startswith("test/")}
        for who, rows in summary["results"].items()
    }
    if any(test.values()):
        title = "test by the final model (trivial baselines beside it)"
        print_tables(title, test, f"see {result.directory}/report.html", summary["monitor"])


def print_json(document: dict[str, Any], stream: TextIO | None = None) -> None:
    """Print a document as one line of strict JSON; numbers that are not finite become "nan", "inf" and "-inf".

    Args:
        document: what is printed.
        stream: where; standard output if not given.
    """
    from trainkit.storage import strict_json

    click.echo(strict_json.dumps(strict_json.without_special_numbers(document)).decode(), stream, nl=False)

"""The listing of components: read from metadata, printed as a table, as aligned text or as JSON, importing little."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from trainkit.errors import unknown_kind
from trainkit.kinds import KINDS
from trainkit.loader.health import with_failures
from trainkit.registry import Registry

INSTALLED = ("kind", "name", "distribution", "version", "status", "summary")
AVAILABLE = ("kind", "name", "distribution", "summary")


def list_plugins(kind: str | None = None, *, as_json: bool = False) -> None:
    """Print what is installed, in which state, and what could be installed.

    Args:
        kind: only this kind.
        as_json: one JSON object with the lists `installed` and `available`.
    """
    if kind is not None and kind not in KINDS:
        raise unknown_kind(kind, KINDS)
    registry = Registry()
    entries, offers = with_failures(registry.entries(kind)), registry.offers(kind)
    if as_json:
        print_json({"installed": [e._asdict() for e in entries], "available": [o._asdict() for o in offers]})
        return
    # What is wrong stands where the summary would: one line for each component, for grep.
    installed = [(*e[:2], *e[3:5], e.status, e.reason or e.summary) for e in entries]
    available = [(o.kind, o.name, o.distribution, o.summary) for o in offers]
    show = _draw if sys.stdout.isatty() else _print
    if installed:
        show("installed", INSTALLED, installed)
    else:
        print("no plugin is installed")
    if available:
        show("available: pip install DISTRIBUTION", AVAILABLE, available)


def _print(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = aligned(head, rows)
    # The first table begins with its headings, so that a script finds them in the first line.
    print("\n".join(lines if head is INSTALLED else ["", title, *lines]))


def aligned(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return rows as lines with aligned columns below a line of headings."""
    table = [[heading.upper() for heading in head], *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _draw(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*head, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        # In a listing of available components no column is called status.
        status = dict(zip(head, row, strict=True)).get("status", "ok")
        table.add_row(*map(escape, row), style="" if status == "ok" else "red")
    Console().print(table)


def print_json(document: Any) -> None:
    """Print a document as JSON."""
    import json

    print(json.dumps(document, indent=2, default=str, ensure_ascii=False))

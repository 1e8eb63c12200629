"""Two plans side by side on the terminal: what differs, each value with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from trainkit.config import Layer

if TYPE_CHECKING:
    from trainkit.plandiff import Difference, Side
    from trainkit.registry import Registry

GAP = 2
WIDEST_KEY = 30
MISSING = "-"


def side_of(name: str, below: Sequence[Layer], registry: Registry) -> Side:
    """Return the side that a name stands for: a run directory, a config file, else a strategy.

    Args:
        name: what the user named.
        below: what the user said of both sides; for a run directory, which is what it is, it counts for nothing.
        registry: where names become components.
    """
    from trainkit.config import Value
    from trainkit.draft import make_draft
    from trainkit.plandiff import side_of_draft, side_of_run
    from trainkit.sources import read_file

    path = Path(name)
    if path.is_dir():
        return side_of_run(path, registry)
    if path.suffix == ".toml":
        return side_of_draft(name, make_draft([read_file(path), *below], registry), registry)
    chosen = {"strategy.use": Value(name, "--diff")}
    return side_of_draft(name, make_draft([*below, chosen], registry), registry)


def lines_of(difference: Difference, width: int) -> list[str]:
    """Return what differs as lines of at most `width` columns."""
    left, right = difference.left, difference.right
    keys = [key.removesuffix(".use") for key in difference.keys]
    first = min(WIDEST_KEY, max([len("setting"), *map(len, keys)]))
    column = (width - first - 2 * GAP) // 2
    lines = _row("", left.name, right.name, first, column)
    lines.append("─" * (first + 2 * (GAP + column)))
    for key, shown in zip(difference.keys, keys, strict=True):
        lines += _row(shown, _told(left, key), _told(right, key), first, column)
    if difference.stages_differ:
        for number, texts in enumerate(zip_longest(left.stage_texts(), right.stage_texts(), fillvalue="-"), 1):
            lines += _row(f"stage {number}", *texts, first, column)
    notes = difference.document()["notes"]
    for mine, other in zip_longest(notes["left"], notes["right"], fillvalue="-"):
        lines += _row("note", mine, other, first, column)
    same = len({*left.settings, *right.settings}) - len(difference.keys)
    lines.append(f"{same} settings are the same" + ("" if difference.stages_differ else ", and so are the stages"))
    return lines


def _told(side: Side, key: str) -> str:
    from trainkit.kinds import LIST_KINDS
    from trainkit.plandiff import DEFAULT
    from trainkit.tomltext import show

    value = side.settings.get(key)
    if value is None:
        return MISSING
    named = key.endswith(".use") or key in LIST_KINDS
    names = value.value if isinstance(value.value, list | tuple) else [value.value]
    text = (", ".join(map(str, names)) or "none") if named else show(value.value)
    if value.origin == DEFAULT:
        return f"{text}  (default)"
    why = value.reason or ("" if value.origin == "--diff" else value.origin)
    return f"{text}\n({why})" if why else text


def _row(key: str, mine: str, other: str, first: int, column: int) -> list[str]:
    cells = [_at_dot(key, first) or [""], _wrapped(mine, column), _wrapped(other, column)]
    widths = (first, column, column)
    return [
        (" " * GAP).join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip_longest(*cells, fillvalue="")
    ]


def _at_dot(key: str, width: int) -> list[str]:
    """Return a dotted key as lines, its last part on the second one where it is too long for one."""
    place, _, option = key.rpartition(".")
    return [key] if len(key) <= width or not place else [f"{place}.", f"  {option}"]


def _wrapped(text: str, width: int) -> list[str]:
    return [line for part in text.splitlines() for line in wrap(part, width)] or [""]

"""Tables of results, by the structure of their names: METRIC, METRIC/FIGURE, METRIC/FIGURE/PART.

A part may be one of a group that has a name: METRIC/FIGURE/GROUP/PART; steps are a group, too: METRIC/FIGURE/step-12.
What stands below a loss, as loss/cpu, is a part of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import printable

Results = Mapping[str, Mapping[str, Any]]

SPLITS = ("all", "test", "val", "train")
MODEL, LOSS, PART, STEP = "model", "loss", "part", "step"
NUMBERED = re.compile(r"(.+)-[0-9.]+")


@dataclass(frozen=True)
class Table:
    """Hold a table as texts.

    Args:
        title: what it is of; '' for that of all results.
        groups: heads of the columns, under a head that they share, which may be ''.
        rows: label, which is indented where it belongs to the one above, and cells.
        group: what the rows are parts of, as 'series'; '' for what is overall.
        main: label of the row to point out, or ''.
    """

    title: str
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    group: str = ""
    main: str = ""

    def head(self) -> list[str]:
        """Return the heads in one line, that of the labels, which is empty, first."""
        return ["", *(f"{group} {name}".strip() for group, names in self.groups for name in names)]

    def body(self) -> list[list[str]]:
        """Return the rows with their labels."""
        return [[label, *cells] for label, cells in self.rows]


@dataclass(frozen=True)
class Place:
    """Say where a value belongs: the figure of a metric, and the part it is of."""

    metric: str
    figure: str = ""
    group: str = ""
    part: str = ""


def place_of(name: str) -> Place:
    """Return where a value belongs, by its name without the split."""
    metric, *rest = name.split("/")
    if metric == LOSS and rest:
        # A name of data, as a column in KB/s, may have a slash; metrics write an underscore for it.
        return Place(LOSS, "", PART, "_".join(rest))
    if len(rest) < 2:
        return Place(metric, *rest)
    figure, group, *parts = rest
    if parts:
        return Place(metric, figure, group, "/".join(parts))
    step = re.fullmatch(rf"{STEP}-(\d+)", group)
    return Place(metric, figure, STEP, step[1]) if step else Place(metric, figure, PART, group)


def main_figure(metric: str, places: Iterable[Place]) -> str:
    """Return the figure that a metric's own name stands for: parts have it, and the whole has no other; '' if unknown.

    Args:
        metric: the metric.
        places: of all values.
    """
    own: set[str] = set()
    of_parts: set[str] = set()
    for place in places:
        if place.metric == metric and place.figure:
            (of_parts if place.part else own).add(place.figure)
    main = of_parts - own
    return main.pop() if len(main) == 1 else ""


def overall(results: Results, monitor: str = "", *, details: bool = True) -> Table:
    """Return the table of what holds for whole splits: the model on each, every baseline beside it.

    Args:
        results: for the model and each baseline the values by tag.
        monitor: the tag that decides which checkpoint is the best.
        details: have rows of what is one of several levels, as q-risk-0.1 beside q-risk.
    """
    names = _names(results)
    splits = [split for split in reversed(SPLITS) if any(_has(results[name], split) for name in names)]
    columns = [(name, tuple(split for split in splits if _has(results[name], split))) for name in names]
    shown = overall_names(results, details=details)
    main = monitor.partition("/")[2]
    rows = [
        (
            label_of(name, results),
            tuple(measured(results[who].get(f"{split}/{name}")) for who, mine in columns for split in mine),
        )
        for name in shown
    ]
    groups = tuple(("" if name == MODEL else name, mine) for name, mine in columns if mine)
    return Table("", groups, tuple(rows), main=label_of(main, results) if main in shown else "")


def overall_names(results: Results, *, details: bool = True) -> list[str]:
    """Return the names, without their split, of what holds for whole splits, in the order of rows: see `overall`."""
    # Parts of a loss that have figures, too, stand beside these.
    elsewhere = {place.part for place in map(place_of, _metrics(results)) if place.metric != LOSS}
    shown = [name for name in _metrics(results) if _is_overall(place_of(name), elsewhere)]
    if not details:
        shown = [name for name in shown if not ((level := NUMBERED.fullmatch(name)) and level[1] in shown)]
    return sorted(shown, key=_order(shown))


def by_part(results: Results, split: str) -> list[Table]:
    """Return for each group of parts a table: a row for each part and, below it, each baseline; figures as columns."""
    parts = {name: place for name in _metrics(results, split) if (place := place_of(name)).part}
    owners: dict[tuple[str, str], str] = {}
    for place in parts.values():
        if place.metric != LOSS:
            owners.setdefault((place.group, place.part), place.metric)
    # A part of the loss stands beside the figures of the same part; the others are in the table of what is overall.
    found: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for name, place in parts.items():
        metric, figure = place.metric, place.figure
        if metric == LOSS:
            metric, figure = owners.get((place.group, place.part), ""), LOSS
        if metric:
            found.setdefault((metric, place.group), {}).setdefault(figure, {})[place.part] = name
    return [
        Table(
            f"{metric} by {group}, {split}", (("", tuple(figures)),), tuple(_part_rows(results, split, figures)), group
        )
        for (metric, group), figures in found.items()
    ]


def last_split(results: Results) -> str:
    """Return the split that says most: test, else val, else train; '' where there is none."""
    return next((split for split in SPLITS if any(_has(rows, split) for rows in results.values())), "")


def amount_of(value: Any) -> float | str:
    """Return a measured value as a finite number, or else the text that stands for it; '' for none."""
    if value is None:
        return ""
    try:
        amount = float(value)
    except (TypeError, ValueError):
        return printable(str(value))
    return amount if math.isfinite(amount) else str(amount)


def measured(value: Any) -> str:
    """Return a measured value in up to five digits, so that a column can be compared at a glance; '' for none."""
    amount = amount_of(value)
    if isinstance(amount, str):
        return amount
    size = abs(amount)
    if size >= 1e7 or 0 < size < 1e-3:
        return f"{amount:.2e}"
    whole = len(str(int(size)))
    return f"{amount:.{max(0, 5 - whole)}f}"


def _part_rows(
    results: Results, split: str, figures: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the rows of parts, of which `figures` has by figure and part the names."""
    for part in dict.fromkeys(part for named in figures.values() for part in named):
        for who in _names(results):
            cells = tuple(measured(results[who].get(f"{split}/{named.get(part)}")) for named in figures.values())
            if who == MODEL or any(cells):
                yield part if who == MODEL else f"  {who}", cells


def _names(results: Results) -> list[str]:
    """Return the model and the baselines, the model first."""
    return [name for name in (MODEL, *sorted(results.keys() - {MODEL})) if name in results]


def _metrics(results: Results, split: str = "") -> list[str]:
    """Return the names of all values without their split, those of the model first."""
    tags = (tag for name in _names(results) for tag in results[name] if not split or tag.startswith(f"{split}/"))
    return list(dict.fromkeys(tag.partition("/")[2] or tag for tag in tags))


def _has(rows: Mapping[str, Any], split: str) -> bool:
    return any(tag.startswith(f"{split}/") for tag in rows)


def _is_overall(place: Place, elsewhere: set[str]) -> bool:
    return not place.part or (place.metric == LOSS and place.part not in elsewhere)


def label_of(name: str, results: Results) -> str:
    """Return the label of a row: a metric with the name of its main figure, or, indented, a figure."""
    metric, _, rest = name.partition("/")
    main = main_figure(metric, map(place_of, _metrics(results)))
    return f"  {rest}" if rest else f"{metric} ({main})" if main else metric


def _order(shown: Sequence[str]) -> Callable[[str], tuple[int, bool]]:
    """Return the key that puts the loss first and what is below a metric under it."""
    metrics = list(dict.fromkeys(name.partition("/")[0] for name in shown))
    metrics.sort(key=lambda metric: metric != LOSS)
    place = {metric: number for number, metric in enumerate(metrics)}
    return lambda name: (place[name.partition("/")[0]], "/" in name)

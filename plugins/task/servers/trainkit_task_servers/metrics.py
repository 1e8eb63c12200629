"""The metrics of servers: by which columns they are known, and how they are computed from those."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

Unit = Literal["percent", "amount"]
Make = Callable[..., pl.Expr]


@dataclass(frozen=True)
class Way:
    """Hold a way to a metric.

    Args:
        columns: patterns of the columns it needs, as they are called without case, units and marks.
        make: from those columns to the metric.
    """

    columns: tuple[str, ...]
    make: Make


Ways = Mapping[str, tuple[Way, tuple[str, ...]]]


@dataclass(frozen=True)
class Metric:
    """Hold a metric.

    Args:
        name: what it is called.
        unit: percent, 0 to 100; or an amount of at least 0.
        ways: to it, the first that a table allows is taken.
        is_part: whether another metric holds it; it is made only if it is asked for.
    """

    name: str
    unit: Unit
    ways: tuple[Way, ...]
    is_part: bool = False


def same(column: pl.Expr) -> pl.Expr:
    """Return a column as it is."""
    return column


def share(used: pl.Expr, capacity: pl.Expr) -> pl.Expr:
    """Return what is used in percent of what there is; nothing where there is none."""
    return pl.when(capacity > 0).then(100 * used / capacity)


def total(*columns: pl.Expr) -> pl.Expr:
    """Return the sum; nothing where a part is missing."""
    return pl.sum_horizontal(*columns, ignore_nulls=False)


USED, CAPACITY = "(usage|used|utili[sz]ation)", "(capacity( provisioned)?|provisioned|total|size)"
READ = "disk (read|reads)( throughput| bytes| rate)*"
WRITE = "disk (write|writes|written)( throughput| bytes| rate)*"
RECEIVED = "(network|net) (received|receive|rx|in|recv)( throughput| bytes| rate)*"
SENT = "(network|net) (transmitted|transmit|tx|out|sent)( throughput| bytes| rate)*"
LOAD = "(load|load average|load avg|load ?1|load 1 ?min)"

METRICS = (
    Metric(
        "cpu",
        "percent",
        (
            Way((f"cpu ({USED} )?percent",), same),
            Way((f"cpu {USED} mhz", f"cpu {CAPACITY} mhz"), share),
            Way((f"cpu( {USED})?",), same),
        ),
    ),
    Metric(
        "memory",
        "percent",
        (
            Way((f"(memory|mem|ram) ({USED} )?percent",), same),
            Way((f"(memory|mem|ram) {USED}( [kmg]?i?b)?", f"(memory|mem|ram) {CAPACITY}( [kmg]?i?b)?"), share),
            Way((f"(memory|mem|ram)( {USED})?",), same),
        ),
    ),
    Metric("disk", "amount", (Way((f"{READ}.*", f"{WRITE}.*"), total), Way(("disk( throughput| io)?",), same))),
    Metric(
        "network",
        "amount",
        (Way((f"{RECEIVED}.*", f"{SENT}.*"), total), Way(("(network|net)( throughput| io)?",), same)),
    ),
    Metric("load", "amount", (Way((LOAD,), same),)),
    Metric("disk_read", "amount", (Way((f"{READ}.*",), same),), is_part=True),
    Metric("disk_write", "amount", (Way((f"{WRITE}.*",), same),), is_part=True),
    Metric("network_in", "amount", (Way((f"{RECEIVED}.*",), same),), is_part=True),
    Metric("network_out", "amount", (Way((f"{SENT}.*",), same),), is_part=True),
)
UNITS: Mapping[str, Unit] = {metric.name: metric.unit for metric in METRICS}


def plain(column: str) -> str:
    """Return a column's name in lower case and words, its unit included: `CPU usage [%]` is `cpu usage percent`."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)
    return " ".join(re.sub(r"[^a-z0-9]+", " ", apart.replace("%", " percent ").lower()).split())


def found(columns: Sequence[str], asked: Collection[str] = ()) -> Ways:
    """Return by name each metric that columns allow: the way, and the columns it takes.

    Args:
        columns: of a table.
        asked: metrics that another one holds are found only if they are asked for.
    """
    names = {column: plain(column) for column in columns}
    ways: dict[str, tuple[Way, tuple[str, ...]]] = {}
    for metric in METRICS:
        if metric.is_part and metric.name not in asked:
            continue
        for way in metric.ways:
            taken = [_first(names, pattern) for pattern in way.columns]
            if all(taken):
                ways[metric.name] = way, tuple(column for column in taken if column is not None)
                break
    return ways


def _first(names: Mapping[str, str], pattern: str) -> str | None:
    return next((column for column, name in names.items() if _is_called(name, pattern)), None)


def _is_called(name: str, pattern: str) -> bool:
    # Units that only say how large the numbers are stand behind the name, as KB s.
    return re.fullmatch(rf"({pattern})( ([kmg]?i?b|bytes)( s| per second)?)?", name) is not None


def known(columns: Sequence[str]) -> set[str]:
    """Return the columns that metrics are made of, by whatever way."""
    names = {column: plain(column) for column in columns}
    patterns = [pattern for metric in METRICS for way in metric.ways for pattern in way.columns]
    patterns += [f"cpu {CAPACITY} mhz", f"cpu {USED} mhz", "cpu cores", "(v ?)?cpus?", "cores"]
    return {column for column, name in names.items() if any(_is_called(name, pattern) for pattern in patterns)}

"""Look at data without training on it: all faults and remarks, and figures that describe it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainkit.contracts import Finding, Inspection, Splits
from trainkit.errors import DataError

from .dataset import difficulty_features
from .detect import READERS, Format, data_folder, read_parts
from .reading import Reading
from .tree import Node, TargetKey, depth, parse_target_key, walk

Facts = dict[str, float | str]


def inspect(
    data: Path,
    size: int = 128,
    format: Format = "auto",
    look: Callable[[Splits], Iterable[Finding]] = lambda splits: (),
) -> Inspection:
    """Return what there is to know about a data folder, every fault included.

    Args:
        data: the folder.
        size: side of the square, in pixels, into which pictures are fitted.
        format: the format of the data; 'auto' takes the only one that fits.
        look: what else is to be said of the splits, where there are any.

    Raises:
        DataError: there is nothing to look at: no folder, no samples, or several formats at once.
    """
    reading = Reading(data_folder(data), "skip", 1.0)
    name, parts = read_parts(reading, size, format)
    parts = reading.without_copies(parts)
    samples = [sample for each in parts.values() for sample in each]
    try:
        splits = reading.splits(dict(parts))
        counts = {part: len(dataset) for part, dataset in splits.items()}
        reading.findings += look(splits)
    except DataError as error:
        reading.findings.append(Finding("splits", ".", f"{error.what}; {error.do}"))
        counts = {part: len(each) for part, each in parts.items() if each}
    return Inspection(str(data), f"{name}: {READERS[name].looks}", counts, tuple(reading.findings), facts_of(samples))


def facts_of(samples: Sequence[Mapping[str, Any]]) -> Facts:
    """Return figures that describe samples, by name; spreads are written as 'least to most (mean)'."""
    if not samples:
        return {}
    features = [difficulty_features(sample) for sample in samples]
    keys = [key for sample in samples for key in _keys(sample["layout"])]
    classes = {key.base + key.number for key in keys}
    compound = [str(key) for key in keys if len(key.sources) > 1]
    facts: Facts = {
        "layout nodes": spread(nodes for nodes, *_ in features),
        "layout depth": spread(each[1] for each in features),
        "compound keys": len(compound),
        "distinct compound keys": len(set(compound)),
        "bases": len({key.base for key in keys}),
        "classes (bases with numbers)": len(classes),
        "most frequent bases": _most(key.base for key in keys),
    }
    structures = [sample["structure"] for sample in samples if sample["structure"] is not None]
    if structures:
        facts["structure nodes"] = spread(sum(1 for _ in walk(each)) for each in structures)
        facts["structure depth"] = spread(depth(each) for each in structures)
    sizes = [sample["size"] for sample in samples if sample["size"] is not None]
    if sizes:
        facts["picture width"] = spread(width for width, _ in sizes)
        facts["picture height"] = spread(height for _, height in sizes)
    total = len(samples)
    facts["with picture"] = f"{len(sizes)} of {total}"
    facts["with structure"] = f"{len(structures)} of {total}"
    facts["with boxes"] = f"{sum(has_boxes(sample['layout']) for sample in samples)} of {total}"
    facts["with props"] = f"{sum(bool(sample['props']) for sample in samples)} of {total}"
    facts["quality"] = spread(sample["quality"] for sample in samples)
    return facts


def spread(values: Iterable[float]) -> str:
    """Return 'least to most (mean M)'."""
    values = list(values)
    return f"{min(values):g} to {max(values):g} (mean {short(statistics.fmean(values))})"


def short(value: float) -> str:
    """Return a number with three digits, or all of those before its point: 0.901, 12.8, 1210."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def has_boxes(layout: Node) -> bool:
    """Return whether a node of a layout has a box."""
    return any("box" in current["attributes"] for current in walk(layout))


def _keys(layout: Node) -> Iterable[TargetKey]:
    return (parse_target_key(current["key"]) for current in walk(layout) if current["key"])


def _most(bases: Iterable[str], shown: int = 5) -> str:
    counted = Counter(bases)
    most = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:shown]
    return ", ".join(f"{base} {count}" for base, count in most)

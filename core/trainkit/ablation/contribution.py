"""What a part contributes: the full run against the run without it, paired by seed, with an interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainkit.folds.figures import Spread, spread
from trainkit.resulttable import LOSS, MODEL, measured, overall_names

FULL = "full"
JUDGED = ("val", "test")
ARROWS = {"min": " ↓", "max": " ↑", "": ""}
BY_CHANCE = (
    "About one interval in twenty excludes 0 by chance. With few seeds intervals are wide: one that holds 0 says that "
    "these runs show no contribution, not that there is none."
)

Values = Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class Contribution:
    """Hold what a part contributes to one figure.

    Args:
        label: of the part.
        tag: of the figure, as 'test/element-f1'.
        without: the figure of the runs without the part, over seeds.
        difference: full run minus the run without the part, of the same seed, over seeds; its interval is that of the
            mean of these pairs.
        verdict: what can be said; '' where the interval holds 0, or there are too few pairs.
    """

    label: str
    tag: str
    without: Spread
    difference: Spread
    verdict: str

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "part": self.label,
            "tag": self.tag,
            "without": self.without.document(),
            "difference": self.difference.document(),
            "verdict": self.verdict,
        }


def contribution(label: str, tag: str, full: Values, without: Values, direction: str) -> Contribution:
    """Return what a part contributes to a figure.

    Args:
        label: of the part.
        tag: of the figure.
        full: of the full run the figures by seed.
        without: of the run without the part.
        direction: 'min' where a smaller figure is better, 'max' where a larger one is, '' where that is not known.
    """
    seeds = [seed for seed in full if seed in without]
    ours = [float(full[seed].get(tag, math.nan)) for seed in seeds]
    theirs = [float(without[seed].get(tag, math.nan)) for seed in seeds]
    difference = spread([a - b for a, b in zip(ours, theirs, strict=True)])
    return Contribution(label, tag, spread(theirs), difference, verdict(difference, direction))


def verdict(difference: Spread, direction: str) -> str:
    """Return what a difference says in words; '' where its interval holds 0, or there is none."""
    if not (difference.low > 0 or difference.high < 0):
        return ""
    rises = difference.mean > 0
    if not direction:
        return "higher with it" if rises else "lower with it"
    return "better with it" if rises == (direction == "max") else "worse with it"


def main_tags(results: Iterable[Mapping[str, float]], monitor: str) -> list[str]:
    """Return the tags that an ablation tells of: the monitored one, the loss, each metric's own on val and test.

    A metric without a value of its own has all its figures there.

    Args:
        results: final values of runs by tag.
        monitor: the tag that decided which checkpoint is the best.
    """
    merged = {tag: value for rows in results for tag, value in rows.items()}
    names = overall_names({MODEL: merged}, details=False)
    own = {name for name in names if "/" not in name}
    shown = [name for name in names if name in own or name.partition("/")[0] not in own]
    main = monitor.partition("/")[2]
    shown = list(dict.fromkeys([*([main] if main in names or monitor in merged else []), *shown]))
    return [f"{split}/{name}" for name in shown for split in JUDGED if f"{split}/{name}" in merged]


def is_of_loss(tag: str) -> bool:
    """Return whether a tag is of the loss, which another loss measures in another way."""
    return tag.split("/")[1] == LOSS


def signed(value: float) -> str:
    """Return a difference with its sign; '' where there is none."""
    return "" if math.isnan(value) else ("+" if value > 0 else "") + measured(value)


def sentence(found: Contribution) -> str:
    """Return what a contribution says, for people; '' where there is no verdict."""
    if not found.verdict:
        return ""
    each = found.difference
    return (
        f"{found.label}: {found.tag} is {found.verdict}, by {measured(abs(each.mean))} "
        f"(full minus without: {signed(each.mean)}, 95 % interval {signed(each.low)} to {signed(each.high)})"
    )


def matrix(
    full: Mapping[str, Spread], found: Sequence[Contribution], split: str, directions: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of one split: of the full run each mean, of each part its contribution.

    A cell reads 'difference ± half of its interval', with a star where the interval excludes 0; a head has an arrow to
    where the figure is better.

    Args:
        full: of the full run by tag.
        found: contributions, to any figures.
        split: of which the figures are shown.
        directions: 'min' or 'max' by the name of a figure, where that is known.
    """
    tags = [tag for tag in full if tag.startswith(f"{split}/")]
    cells = {(each.label, each.tag): each for each in found}
    rows = [["full run", *(measured(full[tag].mean) for tag in tags)]]
    rows += [
        [label, *(_cell(cells.get((label, tag))) for tag in tags)] for label in dict.fromkeys(e.label for e in found)
    ]
    names = [tag.partition("/")[2] for tag in tags]
    return ["", *(name + ARROWS[directions.get(name, "")] for name in names)], rows


def _cell(found: Contribution | None) -> str:
    if found is None or math.isnan(found.difference.mean):
        return ""
    each = found.difference
    half = f" ± {measured((each.high - each.low) / 2)}" if not math.isnan(each.low) else ""
    return signed(each.mean) + half + ("*" if found.verdict else "")


def detail(full: Spread, found: Sequence[Contribution], nulls: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of one figure.

    Args:
        full: of the full run.
        found: contributions to this figure.
        nulls: by part what stood in its place.
    """
    head = ["without", "in its place", "mean", "sd", "full minus it", "95 % from", "to", ""]
    rows = [["nothing", "", measured(full.mean), _known(full.sd), "", "", "", ""]]
    for each in found:
        apart = each.difference
        means = [measured(each.without.mean), _known(each.without.sd)] if each.without.values else ["", ""]
        interval = [signed(value) for value in (apart.mean, apart.low, apart.high)]
        rows.append([each.label, nulls[each.label], *means, *interval, each.verdict])
    return head, rows


def _known(value: float) -> str:
    return "" if math.isnan(value) else measured(value)

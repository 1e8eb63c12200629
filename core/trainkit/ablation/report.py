"""What an ablation leaves: ablation.json, and for people README.md and report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainkit.folds.figures import Spread, spread
from trainkit.report import CARD, REPORT
from trainkit.resulttable import LOSS

from .contribution import BY_CHANCE, FULL, Contribution, contribution, is_of_loss, main_tags

if TYPE_CHECKING:
    from trainkit.rundir import RunDirectory

    from .plan import AblationPlan

RECORD = "ablation.json"


def record(plan: AblationPlan, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the runs that are over came to, as JSON.

    Args:
        plan: what is carried out.
        rows: of each run part, seed, directory, status, steps, seconds and final values.
    """
    done: dict[str, dict[int, Mapping[str, float]]] = {}
    for row in rows:
        if row["status"] != "failed":
            done.setdefault(row["part"], {})[row["seed"]] = row["results"]
    full = done.get(FULL, {})
    tags = main_tags(full.values(), plan.monitor)
    found = [
        contribution(each.label, tag, full, done.get(each.label, {}), plan.directions.get(tag.partition("/")[2], ""))
        for each in plan.removals
        for tag in tags
        # Another loss measures in another way: its values are no figures of the full run's.
        if not (each.label == LOSS and is_of_loss(tag))
    ]
    figures = {tag: spread([float(results.get(tag, float("nan"))) for results in full.values()]) for tag in tags}
    planned = plan.document() | {"planned_runs": len(plan.runs)}
    return planned | {
        "runs": list(rows),
        "full": {tag: figure.document() for tag, figure in figures.items()},
        "contributions": [each.document() for each in found],
    }


def read_figures(document: Mapping[str, Any]) -> tuple[dict[str, Spread], list[Contribution]]:
    """Return the figures of the full run and the contributions that a record holds."""
    full = {tag: Spread(**each) for tag, each in document["full"].items()}
    return full, [
        Contribution(
            each["part"], each["tag"], Spread(**each["without"]), Spread(**each["difference"]), each["verdict"]
        )
        for each in document["contributions"]
    ]


def notes(document: Mapping[str, Any]) -> list[str]:
    """Return what has to be said of an ablation beside its figures."""
    found = list(document["warnings"])
    missing = document["planned_runs"] - len(document["runs"])
    if missing:
        found.append(f"{missing} of {document['planned_runs']} runs are not done yet")
    found += [
        f"without {row['part']}, seed {row['seed']}: failed: {row['reason']}"
        for row in document["runs"]
        if row["status"] == "failed"
    ]
    if any(each["part"] == LOSS for each in document["parts"]):
        found.append("without loss: no figures of the loss, as another one measures in another way")
    return [*found, BY_CHANCE]


def run_rows(document: Mapping[str, Any]) -> list[list[Any]]:
    """Return part, seeds done, mean steps, samples and seconds of the runs with and without each part."""
    body = []
    for part in dict.fromkeys(row["part"] for row in document["runs"]):
        rows = [row for row in document["runs"] if row["part"] == part and row["status"] != "failed"]
        means = [sum(float(row[name]) for row in rows) / len(rows) if rows else None for name in RUN_FIGURES]
        body.append([part, len(rows), *means])
    return body


RUN_FIGURES = ("steps", "samples", "seconds")


def write_pages(directory: RunDirectory, document: Mapping[str, Any]) -> None:
    """Write README.md and report.html of an ablation."""
    from trainkit.reporting.ablationpage import card, page

    directory.write_text(CARD, card(directory.path.resolve().name, document))
    directory.write_text(REPORT, page(directory.path.resolve().name, document))

"""`trainkit ablate`: what each part of a run contributes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from trainkit.ablation.plan import AblationPlan

CELLS = (
    "full run minus the run without the part, ± half of the 95 % interval; * excludes 0; ↓ lower, ↑ higher is better"
)


@click.command()
@click.argument("directory", metavar="RUN")
@click.option(
    "--only", metavar="PART,...", multiple=True, help="Only these, by kind or as KIND/NAME; as loss,augmenter/layout."
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, metavar="N", help="Runs of each.")
@click.option("--max-steps", type=click.IntRange(1), metavar="N", help="End every run at this step at the latest.")
@click.option("--out", metavar="DIR", help="Where the runs and the report are; RUN-ablation if not given.")
@click.option("--plan", "only_plan", is_flag=True, help="Only list the runs, with a forecast of their time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output at the end.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no table.")
def command(
    directory: str,
    only: tuple[str, ...],
    seeds: int,
    max_steps: int | None,
    out: str | None,
    only_plan: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Find out what each part of a run contributes.

    \b
    trainkit ablate runs/layout-... --plan    which runs, and how long they take
    trainkit ablate runs/layout-...           carry them out, or go on with them
    trainkit ablate runs/layout-... --only loss,augmenter/layout --seeds 5

    The run is done again as it was, and again without one of its parts at a time, each with the same seeds. In a part's
    place stands its null: no augmenter, no callback, a constant rate, cross-entropy, AdamW, all weights, one stage. The
    table says how much better or worse the full run is, with 95 % intervals over the pairs of runs of one seed.
    """
    from .threads import wait_briefly

    wait_briefly()
    from trainkit.ablation.ablation import start
    from trainkit.ablation.plan import Asked, plan_ablation
    from trainkit.api import ExitCode, Request

    from .progress import make_progress
    from .tables import print_json

    def report(message: str) -> None:
        if not quiet:
            click.echo(message, err=True)

    progress = [] if quiet else [("progress", make_progress(sys.stderr))]
    request = Request(listeners=progress, report=report)
    names = [name for given in only for name in given.split(",") if name]
    # What a component prints must not get between a program and the JSON that it reads.
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        plan = plan_ablation(Path(directory), Asked(names, seeds, max_steps), request)
        result = None if only_plan else start(plan, request, Path(out) if out is not None else None)
    if result is None:
        print_plan(plan, as_json=as_json)
        return int(ExitCode.DONE)
    if as_json:
        print_json({"directory": str(result.directory), "status": result.status, **result.document})
    elif not quiet:
        print_contributions(result.document)
        click.echo(f"report: {result.directory / 'report.html'}")
    return int(result.exit_code)


def print_plan(plan: AblationPlan, *, as_json: bool) -> None:
    """Print which runs an ablation has, what stays, and how long it takes."""
    from trainkit.api import cost_of

    from .progress import clock
    from .tables import print_json, print_table

    seconds = plan.seconds(cost_of(plan.draft))
    if as_json:
        print_json(plan.document() | {"seconds": seconds})
        return
    steps = {run.label: run.steps for run in plan.runs}
    rows = [["nothing (the full run)", "", "", str(steps["full"])]]
    rows += [[each.label, each.component, each.null, str(steps[each.label])] for each in plan.removals]
    print_table("runs, each with every seed", ["without", "it is", "in its place", "steps"], rows)
    for label, reason in plan.kept.items():
        click.echo(f"stays: {label}: {reason}")
    for warning in plan.warnings:
        click.echo(f"warning: {warning}")
    click.echo(
        f"{len(plan.runs)} runs, seeds {', '.join(map(str, plan.seeds))}: about {clock(seconds)}, "
        "by a few steps of the full run measured here; steps without a part are taken to cost the same"
    )


def print_contributions(document: Mapping[str, Any]) -> None:
    """Print what each part contributes, a table for each split, and what can be said in words."""
    from trainkit.ablation.contribution import JUDGED, matrix, sentence
    from trainkit.ablation.report import notes, read_figures

    from .tables import print_table

    full, found = read_figures(document)
    for split in JUDGED:
        if any(tag.startswith(f"{split}/") for tag in full):
            print_table(f"{split}: {CELLS}", *matrix(full, found, split, document["directions"]))
            click.echo()
    for each in found:
        if said := sentence(each):
            click.echo(said)
    if any(each.difference.values for each in found) and not any(each.verdict for each in found):
        click.echo("no interval excludes 0: these runs show no contribution of any part")
    for note in notes(document):
        click.echo(f"note: {note}")

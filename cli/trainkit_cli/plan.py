"""`trainkit plan`: what a run would do, what it would cost, and why, before anything is spent."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from .request import blocked_names, layers, request_options

if TYPE_CHECKING:
    from trainkit.config import Value
    from trainkit.costs.cost import Cost
    from trainkit.draft import Draft
    from trainkit.folds.plan import FoldPlan


LOADING_SHOWN, EVALUATING_SHOWN = 0.1, 0.02
NARROWEST, USUAL, WIDEST = 60, 100, 120
LABEL, MOST_LABEL = 12, 26


@click.command()
@request_options
@click.option("--why", "key", metavar="KEY", help="Only the reason of one setting, as --why optimizer.lr.")
@click.option(
    "--diff",
    "compared",
    nargs=2,
    metavar="A B",
    help="Only what sets two plans apart; each a strategy, a config file or a run directory.",
)
@click.option("--no-cost", is_flag=True, help="Skip the few measured steps that time and memory are estimated from.")
@click.option("--prices", metavar="FILE.toml", type=click.Path(path_type=Path), help="A price table of your own.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    config: Path | None,
    assignments: tuple[str, ...],
    blocked: tuple[str, ...],
    key: str | None,
    compared: tuple[str, str] | None,
    no_cost: bool,
    prices: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Show what a run would do, what it would cost, and why.

    \b
    trainkit plan                               stages, rates, time, price
    trainkit plan --strategy phase2 --epochs 9  with the options of a run
    trainkit plan --why optimizer.lr            where a setting comes from
    trainkit plan --diff phase1 phase2          what sets two strategies apart
    """
    from .threads import wait_briefly

    wait_briefly()
    from trainkit.api import Request, cost_of, plan_document
    from trainkit.costs.prices import price_table
    from trainkit.draft import make_draft
    from trainkit.folds.plan import plan_folds
    from trainkit.registry import Registry

    request = Request(layers(config, assignments, flags), registry=Registry(blocked=blocked_names(blocked)))
    if compared is not None:
        print_difference(request, *compared, as_json=as_json)
        return
    if not no_cost:
        # A table that cannot be read is told before data is.
        price_table(prices)
    draft = make_draft(request.layers, request.registry)
    if key is not None:
        click.echo(why(draft, key))
        return
    cost = None if no_cost else cost_of(draft, prices)
    folds = plan_folds(draft) if draft.settings.folds is not None else None
    if as_json:
        seconds = {"seconds": folds.seconds(draft, cost)} if folds is not None and cost is not None else {}
        cut = {"folds": {"runs": [run.document() for run in folds.folds], **seconds}} if folds is not None else {}
        document = plan_document(draft) | {"settings": draft.config.document(), "outline": outline_document(draft)}
        click.echo(json.dumps(document | cut | ({"cost": cost.document()} if cost else {})))
        return
    print_plan(draft, cost, folds)


def print_difference(request: Any, left: str, right: str, *, as_json: bool) -> None:
    """Print what sets two plans apart."""
    from trainkit.plandiff import difference

    from .sidebyside import lines_of, side_of
    from .tables import print_json

    sides = [side_of(name, request.layers, request.registry) for name in (left, right)]
    found = difference(*sides)
    if as_json:
        print_json(found.document())
    else:
        click.echo("\n".join(lines_of(found, columns())))


def columns() -> int:
    """Return the columns to write in: those of the terminal, within reason."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return USUAL
    return max(NARROWEST, min(shutil.get_terminal_size((USUAL, 24)).columns, WIDEST))


def outline_document(draft: Draft) -> list[dict[str, Any]]:
    """Return the outline of a draft as JSON."""
    from trainkit.outline import outline

    return [vars(track) for track in outline(draft)]


def why(draft: Draft, key: str) -> str:
    """Return every value that was proposed for a setting, the one in force first."""
    from trainkit.errors import unknown_key
    from trainkit.settings import describe_settings

    defaults = {name: (default, text) for name, default, text in describe_settings()}
    defaults |= component_defaults(draft)
    key = draft.config.in_full(key)
    if f"{key}.use" in defaults:
        key += ".use"
    if key not in draft.config and key not in defaults:
        raise unknown_key(key, [*draft.config, *defaults], "--why")
    from trainkit.tomltext import show

    values = [str(value) for value in reversed(draft.config.history.get(key, []))]
    if key in defaults:
        default, text = defaults[key]
        values.append(f"{show(default)} from the default" + (f": {text}" if text else ""))
    head, *rest = values
    return "\n".join([f"{key} = {head}", *(f"  instead of {line}" for line in rest)])


def component_defaults(draft: Draft) -> dict[str, tuple[Any, str]]:
    """Return default and help of the options of every component of a draft, by dotted key."""
    from trainkit.parts import described
    from trainkit.registry import Registry

    found: dict[str, tuple[Any, str]] = {}
    for part in (part for outer in draft.outer_parts() for part in (outer, *outer.inner())):
        for name, _, default, text in described(part.component, Registry()):
            use = ".use" if name in part.component.inner else ""
            # The outer component's word on a default that stands beside its own goes first.
            found.setdefault(f"{part.component.key(name)}{use}", (default, text))
    return found


def print_plan(draft: Draft, cost: Cost | None, folds: FoldPlan | None = None) -> None:
    """Print a draft: data, parts, notes, stages, timeline, folds, settings with their reasons, cost."""
    from trainkit.tomltext import show

    from .timeline import draw_timeline

    width = columns()

    inside = [part.component.place for kind in draft.parts for part in draft.parts[kind].inner()]
    left = min(MOST_LABEL, max(LABEL, *map(len, inside), 0)) if inside else LABEL

    def say(label: str, text: str) -> None:
        click.echo("\n".join(paragraph(label, text, width, left)))

    counts = ", ".join(f"{len(dataset):,} {split}" for split, dataset in draft.splits.items())
    say("data", f"{draft.splits.source}: {counts}")
    for kind in ("strategy", "task", "loss", "optimizer", "scheduler", "adapter"):
        say(kind, chosen(draft.config.history[f"{kind}.use"][-1]))
        for component in (part.component for part in draft.parts[kind].inner()) if kind in draft.parts else ():
            given = draft.config.history.get(f"{component.place}.use")
            say(component.place, chosen(given[-1]) if given else f"{component.name}  (default)")
    for kind, listed in draft.lists.items():
        given = draft.config.history.get(kind)
        say(kind, (", ".join(listed) or "none") + (f"  ({told(given[-1])})" if given and told(given[-1]) else ""))
    ranks, batch = draft.settings.devices, draft.settings.loop.batch_size
    if ranks != "auto" and ranks > 1:
        share = f"{batch // ranks}" + (f" or {batch // ranks + 1}" if batch % ranks else "")
        say("devices", f"{ranks}, a process (rank) for each: {share} samples of each micro-batch of {batch}")
    for note in (*draft.plan.notes, *draft.splits.warnings, *draft.warnings):
        say("note", note)
    if draft.settings.lr_find:
        say("note", "lr_find: rates are tested first, and optimizer.lr becomes what that suggests")
    click.echo()
    print_stages(draft, width)
    click.echo()
    click.echo(draw_timeline(draft, width))
    click.echo()
    if folds is not None:
        print_folds(folds, draft, width)
        click.echo()
    shown = {key: values[-1] for key, values in sorted(draft.config.history.items()) if is_told(key, values[-1])}
    click.echo("settings that are not defaults")
    for origin in dict.fromkeys(value.origin for value in shown.values()):
        click.echo(f"  {origin}")
        for key, value in shown.items():
            if value.origin == origin:
                lines = paragraph(f"{key} = {show(value.value)}", value.reason, width - 4, left=34)
                click.echo("\n".join(f"    {line}" for line in lines))
    if cost is not None:
        click.echo()
        print_cost(cost, width, None if folds is None else folds.seconds(draft, cost))


def chosen(value: Value) -> str:
    """Return the name that a setting holds, and where it comes from."""
    return f"{value.value}  ({told(value) or 'default'})"


def told(value: Value) -> str:
    """Return where a value comes from and why; '' for a default."""
    origin = "" if value.origin == "default" else value.origin
    return ": ".join(part for part in (origin, value.reason) if part)


def is_told(key: str, value: Value) -> bool:
    """Return whether a setting belongs into the list: no default, nothing that was told above."""
    from trainkit.kinds import LIST_KINDS

    if value.origin == "default" or key.endswith(".use") or key in LIST_KINDS:
        return False
    return not (key.startswith("stages.") and value.origin.startswith("strategy "))


def print_stages(draft: Draft, width: int) -> None:
    """Print the stages as a table."""
    from trainkit.outline import restrictions

    from .tables import print_table

    rows = []
    for planned in draft.stages:
        length, stage = planned.length, planned.stage
        learns = " ".join(stage.trainable) if stage.trainable != ("*",) else "all weights"
        easiest = [text for text in restrictions(stage) if not text.startswith(("rate", "learns"))]
        # Callbacks that select samples make epochs shorter.
        most = "up to " if length.steps < length.steps_per_epoch * length.epochs and stage.epochs is not None else ""
        rows.append(
            [
                stage.name,
                f"{planned.first_step:,}-{planned.last_step:,}",
                f"{length.epochs:,}",
                f"{most}{length.samples:,}",
                f"{most}{length.steps_per_epoch:,}",
                f"{stage.lr_factor:g}",
                ", ".join(easiest) or "all samples",
                learns,
            ]
        )
    head = ["stage", "steps", "epochs", "samples/epoch", "steps/epoch", "lr factor", "learns from", "learns"]
    if all(row[5] == "1" for row in rows):
        head, rows = head[:5] + head[6:], [row[:5] + row[6:] for row in rows]
    print_table("stages", head, rows)


def paragraph(label: str, text: str, width: int, left: int = LABEL) -> list[str]:
    """Return a label with a text beside it, wrapped to a width; a label that is too long has its text below.

    Args:
        label: what stands at the left.
        text: what is said of it.
        width: columns of it all.
        left: columns of the label.
    """
    lines = wrap(text, max(20, width - left - 1), break_long_words=False, break_on_hyphens=False) or [""]
    if len(label) > left:
        return [label, *(f"{' ' * (left + 1)}{line}" for line in lines if line)]
    return [f"{label:<{left}} {lines[0]}".rstrip(), *(f"{' ' * (left + 1)}{line}" for line in lines[1:])]


def print_folds(folds: FoldPlan, draft: Draft, width: int) -> None:
    """Print the runs of a cross-validation: the stages above are those of a run on all training samples."""
    from .tables import print_table

    splits = list(dict.fromkeys(split for run in folds.folds for split in run.samples))
    rows = [
        [run.name, *(f"{run.samples[split]:,}" if split in run.samples else "" for split in splits), f"{run.steps:,}"]
        for run in folds.folds
    ]
    print_table(f"cross-validation: {len(folds.folds)} runs", ["run", *splits, "steps"], rows)
    for warning in (warning for warning in folds.warnings if warning not in draft.splits.warnings):
        click.echo("\n".join(paragraph("note", warning, width)))


def print_cost(cost: Cost, width: int, of_folds: float | None) -> None:
    """Print time, memory and price, and what they were estimated from.

    Args:
        cost: of one run.
        width: columns to write in.
        of_folds: seconds of all runs of a cross-validation.
    """
    from .progress import clock

    mib = 1024 * 1024

    def say(label: str, text: str) -> None:
        click.echo("\n".join(paragraph(label, text, width)))

    say("parameters", f"{cost.learning:,} of {cost.parameters:,} learn in the first stage")
    parts = [f"{cost.seconds_per_step * 1000:.1f} ms a step"]
    if cost.loading_share > LOADING_SHOWN:
        parts.append(f"{cost.loading_share:.0%} of it loading by one process")
    if cost.evaluating > EVALUATING_SHOWN * cost.seconds:
        parts.append(f"{clock(cost.evaluating)} for evaluations")
    say(
        "time",
        f"about {clock(cost.seconds)}: {', '.join(parts)}; measured here on a few steps"
        f"{' of one rank, without what ranks tell each other' if cost.devices > 1 else ''}, "
        "if the machine stays as busy as it is and no stage ends early",
    )
    if of_folds is not None:
        say("all runs", f"about {clock(of_folds)}, one after another")
    # Most components keep a few numbers at most.
    kept = f"other components {cost.component_bytes / mib:,.0f}, " if cost.component_bytes >= mib else ""
    say(
        "memory",
        f"about {cost.memory_bytes / mib:,.0f} MiB besides the libraries: "
        f"weights and gradients {cost.weight_bytes / mib:,.0f}, optimizer {cost.optimizer_bytes / mib:,.0f}, "
        f"{kept}activations {cost.activation_bytes / mib:,.0f}",
    )
    say("price", price_text(cost, cost.seconds if of_folds is None else of_folds))


def price_text(cost: Cost, seconds: float) -> str:
    """Return what so long a run costs and what that rests on, or that its device has no price and how to give one."""
    amount = cost.amount(seconds)
    if amount is None or cost.price is None:
        from trainkit.costs.prices import own_table
        from trainkit.report import readable

        return f"none known for {cost.device}: give one in {readable(str(own_table()))}, or by --prices FILE.toml"
    devices = "" if cost.devices == 1 else f"{cost.devices} x "
    return f"about {amount:,.2f} {cost.price.currency}: {devices}{cost.device} at {cost.price.basis()}"

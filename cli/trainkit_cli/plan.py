"""`trainkit plan`: what a run would do, what it would cost, and why, before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .request import blocked_names, layers, request_options

if TYPE_CHECKING:
    from trainkit.cost import Cost
    from trainkit.draft import Draft


LOADING_SHOWN = 0.1


@click.command()
@request_options
@click.option("--why", "key", metavar="KEY", help="Only the reason of one setting, as --why optimizer.lr.")
@click.option("--no-cost", is_flag=True, help="Skip the few measured steps that time and memory are estimated from.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    config: Path | None,
    assignments: tuple[str, ...],
    blocked: tuple[str, ...],
    key: str | None,
    no_cost: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Show what a run would do, what it would cost, and why.

    \b
    trainkit plan                               stages, steps, rates, time, memory
    trainkit plan --strategy phase2 --epochs 9  takes what 'trainkit run' takes
    trainkit plan --why optimizer.lr            where a setting comes from
    """
    from .threads import wait_briefly

    wait_briefly()
    from trainkit.api import Request, cost_of, plan_document
    from trainkit.draft import make_draft
    from trainkit.registry import Registry

    request = Request(layers(config, assignments, flags), registry=Registry(blocked=blocked_names(blocked)))
    draft = make_draft(request.layers, request.registry)
    if key is not None:
        click.echo(why(draft, key))
        return
    cost = None if no_cost else cost_of(draft)
    if as_json:
        document = plan_document(draft) | {"settings": draft.config.document()}
        click.echo(json.dumps(document | ({"cost": vars(cost)} if cost else {})))
        return
    print_plan(draft, cost)


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


def print_plan(draft: Draft, cost: Cost | None) -> None:
    """Print a draft: data, parts, stages, learning rate, settings with their reasons, cost."""
    from trainkit.tomltext import show

    from .drawing import draw_curve
    from .tables import print_table

    counts = ", ".join(f"{len(dataset):,} {split}" for split, dataset in draft.splits.items())
    click.echo(f"data      {draft.splits.source}: {counts}")
    strategy = draft.config.history["strategy.use"][-1]
    click.echo(f"strategy  {strategy}")
    for kind in ("task", "loss", "optimizer", "scheduler", "adapter"):
        click.echo(f"{kind:<9} {draft.config.history[f'{kind}.use'][-1]}")
        for component in (part.component for part in draft.parts[kind].inner()):
            chosen = draft.config.history.get(f"{component.place}.use")
            click.echo(f"{component.place:<9} {chosen[-1] if chosen else f'{show(component.name)} from the default'}")
    for kind, listed in draft.lists.items():
        click.echo(f"{kind:<9} {', '.join(listed) or 'none'}")
    for note in (*draft.plan.notes, *draft.splits.warnings, *draft.warnings):
        click.echo(f"note      {note}")
    if draft.settings.lr_find:
        click.echo("note      lr_find: rates are tested first, and optimizer.lr becomes what that suggests")
    click.echo()
    rows = [
        [
            p.stage.name,
            f"{p.first_step}-{p.last_step}",
            str(p.length.epochs),
            f"{p.length.samples:,}",
            f"{p.length.steps_per_epoch:,}",
            f"{p.stage.lr_factor:g}",
            " ".join(p.stage.trainable),
        ]
        for p in draft.stages
    ]
    print_table("stages", ["stage", "steps", "epochs", "samples/epoch", "steps/epoch", "lr factor", "learns"], rows)
    click.echo()
    click.echo(draw_curve(draft))
    click.echo()
    given = [(k, values[-1]) for k, values in sorted(draft.config.history.items()) if not k.endswith(".use")]
    table = [
        [k, show(v.value), v.origin + (f": {v.reason}" if v.reason else "")] for k, v in given if v.origin != "default"
    ]
    click.echo("settings that are not defaults")
    for name, value, origin in table:
        click.echo(f"  {name} = {value}  ({origin})")
    if cost is not None:
        click.echo()
        print_cost(cost)


def print_cost(cost: Cost) -> None:
    """Print time and memory, and what they were estimated from."""
    from .progress import clock

    mib = 1024 * 1024
    click.echo(f"parameters  {cost.learning:,} of {cost.parameters:,} learn in the first stage")
    loading = f", {cost.loading_share:.0%} of it loading by one process" if cost.loading_share > LOADING_SHOWN else ""
    click.echo(
        f"time        about {clock(cost.seconds)}, at {cost.seconds_per_step * 1000:.1f} ms a step, "
        f"measured here on a few steps{loading}"
    )
    click.echo(
        f"memory      about {cost.memory_bytes / mib:,.0f} MiB besides the libraries: "
        f"weights and gradients {cost.weight_bytes / mib:,.0f}, optimizer {cost.optimizer_bytes / mib:,.0f}, "
        f"activations {cost.activation_bytes / mib:,.0f}"
    )

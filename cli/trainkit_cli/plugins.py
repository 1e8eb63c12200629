"""`trainkit plugins`: what is installed, what is broken, what could be installed; options of one; a check of each."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from trainkit import errors
from trainkit.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trainkit.catalogue import Offer
    from trainkit.component import Component
    from trainkit.discovery import Entry
    from trainkit.probe import Probe

INSTALLED = ("kind", "name", "distribution", "version", "status", "summary")
AVAILABLE = ("kind", "name", "distribution", "summary")

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(invoke_without_command=True)
@click.option("--kind", metavar="KIND", help=f"Only this kind: {', '.join(KINDS)}.")
@_json_option
@click.pass_context
def command(ctx: click.Context, kind: str | None, as_json: bool) -> None:
    """List what is installed, what is broken, what could be installed.

    Reads package metadata and imports no plugin. 'broken' means that the plugin failed when it was last used or checked.
    """
    if ctx.invoked_subcommand is not None:
        return
    from trainkit.health import with_failures
    from trainkit.registry import Registry

    if kind is not None and kind not in KINDS:
        raise errors.unknown_kind(kind, KINDS)
    registry = Registry()
    entries, offers = with_failures(registry.entries(kind)), registry.offers(kind)
    if as_json:
        _echo_json({"installed": [e._asdict() for e in entries], "available": [o._asdict() for o in offers]})
        return
    _print_installed(entries)
    if offers:
        _print_available(offers)


@command.command()
@click.argument("component", metavar="KIND/NAME")
@_json_option
def show(component: str, as_json: bool) -> None:
    """Show the options of a component with types, defaults and help."""
    from trainkit.registry import Registry

    kind, name = split(component)
    loaded = Registry().load(kind, name)
    if as_json:
        _echo_json(describe(loaded))
    else:
        click.echo("\n".join(description_lines(describe(loaded))))


@command.command()
@click.argument("components", metavar="[KIND/NAME]...", nargs=-1)
@click.option(
    "--limit", "limit_seconds", default=20.0, show_default=True, metavar="SECONDS", help="Longest time for each."
)
@_json_option
def check(components: tuple[str, ...], limit_seconds: float, as_json: bool) -> None:
    """Load each plugin, or those named, in a process of its own and tell how it did.

    A plugin that raises, exits, hangs or crashes is shown as broken by 'trainkit plugins' until it loads again.
    """
    from trainkit.probe import probe
    from trainkit.registry import Registry

    registry = Registry()
    entries = [registry.find(*split(component)) for component in components] or registry.entries()
    probes = []
    for entry in entries:
        probes.append(probe(entry, limit_seconds))
        if not as_json:
            click.echo("\n".join(probe_lines(probes[-1], with_traceback=bool(components))))
    if as_json:
        _echo_json([{**result._asdict(), "entry": result.entry._asdict()} for result in probes])
    if any(result.fault for result in probes):
        sys.exit(errors.ExitCode.PLUGIN)


@command.command()
@click.argument("action", type=click.Choice(["write", "check"]))
@click.argument("root", default=".", type=click.Path(exists=True, file_okay=False))
def registry(action: str, root: str) -> None:
    """Write the catalogue registry.toml of a repository, or check that it is current (for trainkit's own developers)."""
    from pathlib import Path

    from trainkit import catalogue

    (catalogue.write if action == "write" else catalogue.check)(Path(root))


def split(component: str) -> tuple[str, str]:
    """Return kind and reference of KIND/NAME; raise UsageError for another form or an unknown kind."""
    kind, slash, reference = component.partition("/")
    if not slash or not reference:
        raise errors.UsageError(
            f"'{errors.printable(component)}' is not of the form KIND/NAME", do="write it as in optimizer/adamw"
        )
    if kind not in KINDS:
        raise errors.unknown_kind(kind, KINDS)
    return kind, reference


def describe(component: Component) -> dict[str, Any]:
    """Return what there is to know about a component, as JSON."""
    import inspect

    from trainkit.options import REQUIRED

    options = []
    for row in component.describe():
        is_required = row.default is REQUIRED
        default = None if is_required else row.default
        options.append({**row._asdict(), "default": default, "required": is_required})
    lines = (inspect.getdoc(component.target) or "").splitlines()
    return {
        "kind": component.kind,
        "name": component.name,
        "distribution": component.distribution,
        "version": component.version,
        "summary": lines[0] if lines else "",
        "reads": list(component.reads),
        "gives": list(component.gives),
        "options": options,
    }


def description_lines(found: dict[str, Any]) -> list[str]:
    """Return the description of a component as lines."""
    from trainkit.config import show as as_toml

    lines = [f"{found['kind']}/{found['name']}", *([f"  {found['summary']}"] if found["summary"] else [])]
    facts = {"from": f"{found['distribution']} {found['version']}".strip() or "a file"}
    facts |= {key: ", ".join(found[key]) for key in ("reads", "gives") if found[key]}
    lines += ["", *(f"  {key:<6} {value}" for key, value in facts.items()), ""]
    rows = [
        (
            option["name"],
            option["type"],
            "required" if option["required"] else as_toml(option["default"]),
            option["help"],
        )
        for option in found["options"]
    ]
    if not rows:
        return [*lines, "  no options"]
    return [*lines, *(f"  {line}" for line in aligned(("option", "type", "default", "help"), rows))]


def probe_lines(result: Probe, *, with_traceback: bool) -> list[str]:
    """Return what a check of a plugin found, as lines."""
    from trainkit.probe import SLOW_SECONDS

    entry = result.entry
    remarks = [f"{result.seconds:.1f} s"]
    if result.seconds > SLOW_SECONDS and not result.fault:
        remarks.append("slow to import")
    if result.printed:
        remarks.append(f"it printed {result.printed} bytes")
    state = "broken" if result.fault else "ok"
    lines = [f"{state:<7} {entry.kind}/{entry.name} ({entry.provider}): {', '.join(remarks)}"]
    lines += [f"        {line}" for line in errors.printable(result.fault).splitlines()]
    if with_traceback and result.traceback:
        lines += [f"        {line}" for line in errors.printable(result.traceback).splitlines()]
    return lines


def _print_installed(entries: Sequence[Entry]) -> None:
    # What is wrong stands where the summary would: a line stays a line for grep.
    rows = [(*entry[:2], *entry[3:5], entry.status, entry.reason or entry.summary) for entry in entries]
    if not rows:
        click.echo("no plugin is installed")
    elif sys.stdout.isatty():
        _draw("installed", INSTALLED, rows)
    else:
        click.echo("\n".join(aligned(INSTALLED, rows)))


def _print_available(offers: Sequence[Offer]) -> None:
    rows = [(offer.kind, offer.name, offer.distribution, offer.summary) for offer in offers]
    if sys.stdout.isatty():
        _draw("available: pip install DISTRIBUTION", AVAILABLE, rows)
    else:
        click.echo("\n".join(["", "available: pip install DISTRIBUTION", *aligned(AVAILABLE, rows)]))


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


def _echo_json(document: Any) -> None:
    import json

    click.echo(json.dumps(document, indent=2, default=str, ensure_ascii=False))

"""`trainkit plugins`: what is installed, what is broken, what could be installed; options of one; a check of each."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from trainkit import errors
from trainkit.kinds import KINDS

from .listing import aligned, list_plugins, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainkit.component import Component
    from trainkit.loader.probe import Check, Probe

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(invoke_without_command=True)
@click.option("--kind", metavar="KIND", help=f"Only this kind: {', '.join(KINDS)}.")
@_json_option
@click.pass_context
def command(ctx: click.Context, kind: str | None, as_json: bool) -> None:
    """List what is installed, what is broken, what could be installed.

    \b
    trainkit plugins --kind loss             what there is of one kind
    trainkit plugins show optimizer/adamw    the options of a component

    The listing reads package metadata and imports no plugin. 'broken': the plugin failed when it was last used or
    checked.
    """
    if ctx.invoked_subcommand is not None:
        return
    list_plugins(kind, as_json=as_json)


@command.command()
@click.argument("component", metavar="KIND/NAME")
@_json_option
def show(component: str, as_json: bool) -> None:
    """Show the options of a component with types, defaults and help."""
    from trainkit.registry import Registry

    kind, name = split(component)
    loaded = Registry().load(kind, name)
    if as_json:
        print_json(describe(loaded))
    else:
        click.echo("\n".join(description_lines(describe(loaded))))


@command.command()
@click.argument("components", metavar="[KIND/NAME]...", nargs=-1)
@click.option(
    "--limit", "limit_seconds", default=20.0, show_default=True, metavar="SECONDS", help="Longest time to load one."
)
@_json_option
def check(components: tuple[str, ...], limit_seconds: float, as_json: bool) -> None:
    """Load every plugin in a process of its own; put those that are named through the checks of their kind too.

    A plugin that raises, exits, hangs or crashes is shown as broken by 'trainkit plugins' until it loads again. The
    checks are those of trainkit.testing, which a plugin's own tests run.
    """
    from trainkit.loader.probe import conformance, probe
    from trainkit.registry import Registry

    registry = Registry()
    entries = [registry.find(*split(component)) for component in components] or registry.entries()
    found, failed = [], False
    for entry in entries:
        result = probe(entry, limit_seconds)
        checks = conformance(entry) if components and not result.fault else []
        failed |= bool(result.fault) or any(made.outcome == "failed" for made in checks)
        if as_json:
            found.append({**result._asdict(), "entry": entry._asdict(), "checks": [made._asdict() for made in checks]})
        else:
            click.echo("\n".join(probe_lines(result, with_traceback=bool(components)) + check_lines(checks)))
    if as_json:
        print_json(found)
    if failed:
        sys.exit(errors.ExitCode.PLUGIN)


@command.command()
@click.argument("action", type=click.Choice(["write", "check"]))
@click.argument("root", default=".", type=click.Path(exists=True, file_okay=False))
def registry(action: str, root: str) -> None:
    """Write a repository's catalogue, registry.toml, or check that it is current: for trainkit's own developers."""
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

    from trainkit.loader.options import REQUIRED
    from trainkit.parts import described
    from trainkit.registry import Registry

    options = []
    for row in described(component, Registry()):
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
    from trainkit.tomltext import show as as_toml

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


def check_lines(checks: Sequence[Check]) -> list[str]:
    """Return the outcomes of a component's checks as lines: the numbers, and what did not pass."""
    if not checks:
        return []
    outcomes = ("passed", "failed", "not checked")
    numbers = {outcome: sum(made.outcome == outcome for made in checks) for outcome in outcomes}
    lines = ["checks: " + ", ".join(f"{number} {outcome}" for outcome, number in numbers.items() if number)]
    for made in checks:
        if made.outcome != "passed":
            lines.append(f"{made.outcome}: {made.about or made.name}")
            lines += [f"  {line}" for line in errors.printable(made.message).splitlines()]
    return [f"        {line}" for line in lines]


def probe_lines(result: Probe, *, with_traceback: bool) -> list[str]:
    """Return what a check of a plugin found, as lines."""
    from trainkit.loader.probe import SLOW_SECONDS

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

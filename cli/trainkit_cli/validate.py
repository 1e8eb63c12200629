"""`trainkit validate`: what is wrong with data before a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from .request import blocked_names, layers, task_options

if TYPE_CHECKING:
    from trainkit.contracts import Finding, Inspection

FIRST = 5


@click.command()
@click.argument("data", metavar="DATA")
@task_options
@click.option("--all", "everything", is_flag=True, help=f"Every place of a finding, not only the first {FIRST}.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    data: str, assignments: tuple[str, ...], blocked: tuple[str, ...], everything: bool, as_json: bool, **flags: Any
) -> int:
    """Find out what is wrong with data before a run.

    \b
    trainkit validate ./pages
    trainkit validate ./pages --task layout --set task.max_length=100 --all

    Faults are what a run would stop at, or skip on request; remarks are worth knowing. Exit code 5: there are faults.
    """
    from trainkit.api import Request, inspect, inspection_document
    from trainkit.errors import ExitCode
    from trainkit.registry import Registry

    from .tables import print_json

    asked = layers(None, assignments, {"data": data, **flags})
    found = inspect(Request(asked, registry=Registry(blocked=blocked_names(blocked))))
    if as_json:
        print_json(inspection_document(found))
    else:
        print_inspection(found, None if everything else FIRST)
    return int(ExitCode.DATA if any(finding.is_fault for finding in found.findings) else ExitCode.DONE)


def print_inspection(found: Inspection, first: int | None) -> None:
    """Print an inspection, of each rule the first places."""
    from trainkit.errors import printable

    counts = ", ".join(f"{count:,} {split}" for split, count in found.samples.items())
    lines = {"data": found.source, "format": found.format, "samples": counts or "none"}
    lines |= {name: f"{fact:,}" if isinstance(fact, int | float) else fact for name, fact in found.facts.items()}
    width = max(map(len, lines))
    for name, text in lines.items():
        click.echo(f"{name:<{width}}  {printable(text)}")
    for title, is_fault in (("faults", True), ("remarks", False)):
        kept = [finding for finding in found.findings if finding.is_fault is is_fault]
        click.echo(f"\n{title}: {len(kept):,}" if kept else f"\nno {title}")
        for rule in dict.fromkeys(finding.rule for finding in kept):
            _print_rule(rule, [finding for finding in kept if finding.rule == rule], first)


def _print_rule(rule: str, findings: Sequence[Finding], first: int | None) -> None:
    from trainkit.errors import printable

    click.echo(f"  {printable(rule)} ({len(findings):,})")
    for finding in findings[:first]:
        click.echo(f"    {printable(f'{finding.place}: {finding.text}' if finding.place else finding.text)}")
    if first is not None and len(findings) > first:
        click.echo(f"    and {len(findings) - first:,} more; --all shows them")

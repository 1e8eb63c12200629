"""What was written for other programs, and what a component tells of itself, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from trainkit.api import Exported


def print_exported(done: Exported) -> None:
    """Print each file with its size, then the folder."""
    for name, size in done.files.items():
        click.echo(f"  {size:>14,}  {name}")
    click.echo(f"{sum(done.files.values()):>16,}  bytes in {done.directory}, by the checkpoint of step {done.step}")


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print what a component tells of itself, a line for each fact."""
    for name, value in facts.items():
        text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
        click.echo(f"  {name.replace('_', ' '):<22}  {text}")

"""`trainkit run`: train a model from named parts."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .request import arguments_of, blocked_names, layers, request_options


@click.command()
@request_options
@click.option("--out", metavar="RUN_DIR", help="The run directory; a new one under runs/ if not given.")
@click.option("--name", metavar="NAME", help="Name of the run.")
@click.option("--resume", "resumed", metavar="RUN_DIR", help="Go on with a run where its newest checkpoint stands.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output at the end.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no table.")
def command(
    config: Path | None,
    assignments: tuple[str, ...],
    blocked: tuple[str, ...],
    resumed: str | None,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> int:
    """Train a model from named parts.

    \b
    trainkit run                              the embedded sample, all by default
    trainkit run --data ./pages --epochs 20   your own data
    trainkit run --strategy phase2 --loss multitask
    trainkit run --set optimizer.lr=3e-4 --set checkpoint.every_steps=100
    trainkit run --resume runs/layout-...     go on where it was stopped or killed
    trainkit run --devices 2                  two devices share each batch

    'trainkit plan' with the same arguments shows what a run would do, and why. Settings come from the config file, then
    from TRAINKIT_* variables, then from flags; the last one wins.
    """
    from .threads import wait_briefly

    wait_briefly()
    from trainkit.api import Request, resume, start
    from trainkit.ranks.asked import SeveralRanks
    from trainkit.ranks.world import is_first
    from trainkit.registry import Registry

    from .progress import make_progress
    from .tables import print_json, print_results

    talks = is_first(os.environ)
    again = ["run", *arguments_of(config, assignments, blocked, flags)]
    again += ["--resume", resumed] if resumed is not None else []
    again += [flag for flag, is_set in (("--json", as_json), ("--quiet", quiet)) if is_set]
    # Of several ranks one talks.
    quiet = quiet or not talks

    def report(message: str) -> None:
        if not quiet:
            click.echo(message, err=True)

    progress = [] if quiet else [("progress", make_progress(sys.stderr))]
    request = Request(
        layers(config, assignments, flags),
        registry=Registry(blocked=blocked_names(blocked)),
        listeners=progress,
        report=report,
    )
    # What a component prints must not get between a program and the JSON that it reads.
    stdout = contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout)
    with stdout, only_errors() if quiet else contextlib.nullcontext():
        try:
            result = resume(resumed, request) if resumed is not None else start(request)
        except SeveralRanks as asked:
            from trainkit.ranks.launching import launch

            return launch(again, asked)
    if not talks:
        return 0
    if as_json:
        print_json({"directory": str(result.directory), **result.summary})
    elif not quiet:
        print_results(result)
    return int(result.exit_code)


@contextlib.contextmanager
def only_errors() -> Iterator[None]:
    """Keep warnings back within the block: Python shows those of a logger that nobody configured."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)

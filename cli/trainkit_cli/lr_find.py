"""`trainkit lr-find`: find a learning rate before a run, by a test of many."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING, Any

import click

from .request import arguments_of, blocked_names, layers, request_options

if TYPE_CHECKING:
    from trainkit.api import RangeTest

RULES, AXES = ("steepest", "valley", "minimum"), ("log", "linear")
WORDS = {"steepest": "the loss falls fastest", "valley": "middle of its longest fall", "minimum": "lowest loss / 10"}
EVERY = 10

Tested = Callable[[int, float, float], None]


@click.command()
@request_options
@click.option("--min", "low", type=float, default=1e-8, show_default=True, metavar="RATE", help="The smallest rate.")
@click.option("--max", "high", type=float, default=1.0, show_default=True, metavar="RATE", help="The largest rate.")
@click.option("--steps", type=int, default=100, show_default=True, metavar="N", help="How many rates, a step each.")
@click.option("--rule", type=click.Choice(RULES), default="steepest", show_default=True, help="Which one is suggested.")
@click.option("--axis", type=click.Choice(AXES), default="log", show_default=True, help="By which steepest is meant.")
@click.option("--out", metavar="DIR", help="A folder that is new or empty; a new one under runs/lr-find if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output at the end.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no drawing.")
def command(
    config: Path | None,
    assignments: tuple[str, ...],
    blocked: tuple[str, ...],
    low: float,
    high: float,
    steps: int,
    rule: Any,
    axis: Any,
    out: str | None,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> int:
    """Find a learning rate by a test of many, before a run.

    \b
    trainkit lr-find                              the run that 'trainkit run' would do
    trainkit lr-find --data ./pages --optimizer lion --min 1e-7 --max 0.1
    trainkit run --set lr_find=true               the same in front of a run, which takes what is found

    A step at each rate, from the smallest to the largest, with the batches, the clipping and the groups of the run;
    there is no scheduler. The loss is written and drawn over the rate, and the rate that it suggests is marked. Nothing
    is trained. Exit code 1 says that no rate was found.
    """
    from .threads import wait_briefly

    wait_briefly()
    from trainkit.api import EXIT_CODES, ExitCode, Request, Search, check_folder, find_in, record_of, save_found
    from trainkit.draft import make_draft
    from trainkit.registry import Registry

    from .tables import print_json

    search = Search(low, high, steps, rule, axis)
    request = Request(layers(config, assignments, flags), registry=Registry(blocked=blocked_names(blocked)))
    draft = make_draft(request.layers, request.registry)
    check_folder(out)
    # What a component prints must not get between a program and the JSON that it reads.
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout), _progress(steps, quiet) as tested:
        test = find_in(draft, search, tested)
    files = save_found(draft, test, out)
    if as_json:
        print_json(record_of(draft, test) | {"files": [str(path) for path in files]})
    else:
        asked = arguments_of(config, assignments, blocked, flags)
        if draft.settings.lr_find:
            # The run would test again, and take what it finds itself.
            asked += ["--set", "lr_find=false"]
        print_test(test, files, shlex.join(["trainkit", "run", *asked]), quiet=quiet)
    if test.signal is not None:
        return int(EXIT_CODES[Signals(test.signal)])
    return int(ExitCode.DONE if test.suggestion is not None else ExitCode.RUN_FAILED)


def print_test(test: RangeTest, files: list[Path], run: str, *, quiet: bool) -> None:
    """Print what a test came to: the drawing, what each rule says, the files, and the command that takes it."""
    from .drawing import draw_range_test

    if not quiet:
        click.echo(draw_range_test(test))
        click.echo()
    for rule, found in test.suggestions.items():
        chosen = "*" if rule == test.rule else " "
        rate = f"{found.rate:g}" if found.rate is not None else "none"
        click.echo(f"{chosen} {rule:<9} {rate:<10} {WORDS[rule] if found.rate is not None else found.reason}")
    ends = {
        "exploded": "the loss exploded",
        "not finite": "the loss or a gradient was not finite",
        "interrupted": "it was interrupted",
    }
    if test.ended:
        click.echo(f"ended at {test.rates[-1]:.3g}, after {len(test.rates)} steps: {ends[test.ended]}", err=True)
    for note in test.notes:
        click.echo(f"note: {note}", err=True)
    for path in files:
        click.echo(path)
    if test.suggestion is not None:
        click.echo(f"use it: {run} --set optimizer.lr={test.suggestion:g}")


@contextlib.contextmanager
def _progress(steps: int, quiet: bool) -> Iterator[Tested | None]:
    """Yield what shows the steps of a test: a bar on a terminal, a line at times elsewhere, nothing if quiet."""
    if quiet:
        yield None
        return
    from .progress import is_plain

    if is_plain(sys.stderr):
        yield _line
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("testing rates", total=steps)
        yield lambda number, rate, loss: progress.update(
            bar, completed=number + 1, description=f"rate {rate:.1e} loss {loss:.4g}"
        )


def _line(number: int, rate: float, loss: float) -> None:
    if (number + 1) % EVERY == 0:
        click.echo(f"step={number + 1} lr={rate:.2e} loss={loss:.4g}", err=True)

"""`trainkit predict`: answer new inputs with the model of a run."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click
from trainkit.errors import printable

from .request import adjustable_layer, checkpoint_option, on_bad_sample_option

if TYPE_CHECKING:
    from trainkit.api import Prediction


@click.command()
@click.argument("directory", metavar="RUN")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "--out", metavar="DIR", help="A folder that is new or empty; a new one under RUN/predictions if not given."
)
@click.option("--open", "opened", is_flag=True, help="Write a page with inputs and answers side by side, and open it.")
@click.option("--batch-size", type=click.IntRange(1), metavar="N", help="How many inputs are answered at once.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Decides about what is drawn."
)
@click.option("--guidance", metavar="S", help="Strength of guidance; as --set task.guidance=S.")
@click.option("--set", "assignments", metavar="task.KEY=VALUE", multiple=True, help="What may change after training.")
@on_bad_sample_option
@checkpoint_option
@click.option("--device", metavar="auto|cpu|cuda[:N]", help="Where to compute; where the run did if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option("--jsonl", "as_lines", is_flag=True, help="Print a JSON object for each answer, on a line of its own.")
def command(
    directory: str,
    inputs: tuple[str, ...],
    out: str | None,
    opened: bool,
    batch_size: int | None,
    seed: int,
    guidance: str | None,
    assignments: tuple[str, ...],
    on_bad_sample: str | None,
    checkpoint: str,
    device: str | None,
    as_json: bool,
    as_lines: bool,
) -> None:
    """Answer new inputs with the model of a run.

    \b
    trainkit predict runs/layout-... page.png
    trainkit predict runs/layout-... ./screenshots --out ./layouts --open
    trainkit predict runs/layout-... page.png --seed 1 --guidance 5
    trainkit predict runs/recipes-... "Chicken soup" --set task.temperature=0.5
    trainkit predict runs/recipes-... - --jsonl < prompts.txt > answers.jsonl

    An input is a file or folder that the task can read. Where the task answers texts, anything else is a prompt, and -
    reads prompts from standard input, one a line. The answer to a single prompt is shown while it grows.

    The data that the run was trained on is not needed. Each answer becomes files named after its input.
    """
    from .threads import wait_briefly

    wait_briefly()
    from trainkit.api import Asked, Request, predictions
    from trainkit.errors import UsageError

    from .opening import open_file
    from .tables import print_json

    if as_json and as_lines:
        raise UsageError("--json beside --jsonl", do="take one: an object at the end, or a line for each answer")
    for_programs = as_json or as_lines
    terminal = Terminal(sys.stdout)

    def tell(item: Prediction) -> None:
        if as_lines:
            print_json(item.document(), terminal.stream)
        elif not as_json:
            terminal.tell(item)

    request = Request(report=lambda message: click.echo(message, err=True))
    how = Asked(batch_size, seed, checkpoint, device, page=opened)
    asked = [adjustable_layer(assignments, guidance, on_bad_sample)]
    pieces = terminal.grow if sys.stdout.isatty() and not for_programs else None
    # What a component prints must not get between a program and the JSON that it reads.
    with contextlib.redirect_stdout(sys.stderr if for_programs else sys.stdout):
        done = predictions(Path(directory), inputs, out, asked, how, request, tell, pieces)
    if as_json:
        print_json(done.document())
    elif not as_lines:
        click.echo(f"{len(done.items)} in {done.directory}, by the checkpoint of step {done.step}")
    if done.page is not None:
        open_file(done.page)


class Terminal:
    """Show answers to people: the names of their files, and texts.

    Args:
        stream: where they go.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._has_grown = False

    def grow(self, piece: str) -> None:
        """Show the next piece of an answer, as soon as it is there."""
        self._has_grown = True
        click.echo(printable(piece), self.stream, nl=False)

    def tell(self, item: Prediction) -> None:
        """Show an answer that is whole; what was shown while it grew is not shown again."""
        line = "  ".join([item.name, *map(str, item.files)])
        if self._has_grown:
            click.echo(f"\n\n{line}", self.stream)
        else:
            click.echo(f"{line}\n{printable(item.text)}\n" if item.text else line, self.stream)

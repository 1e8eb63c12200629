"""`trainkit predict`: answer new inputs with the model of a run."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .request import adjustable_layer, on_bad_sample_option

if TYPE_CHECKING:
    from trainkit.api import Prediction


@click.command()
@click.argument("directory", metavar="RUN")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
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
@click.option(
    "--checkpoint",
    metavar="best|last|NAME",
    default="best",
    show_default=True,
    help="Which weights; a name is that of a folder in RUN/checkpoints.",
)
@click.option("--device", metavar="auto|cpu|cuda[:N]", help="Where to compute; where the run did if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    directory: str,
    inputs: tuple[Path, ...],
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
) -> None:
    """Answer new inputs with the model of a run.

    \b
    trainkit predict runs/layout-... page.png
    trainkit predict runs/layout-... ./screenshots --out ./layouts --open
    trainkit predict runs/layout-... page.png --seed 1 --guidance 5

    The data that the run was trained on is not needed. Each answer becomes files named after its input.
    """
    from .threads import wait_briefly

    wait_briefly()
    from trainkit.api import Asked, Request, predictions

    from .opening import open_file
    from .tables import print_json

    def tell(item: Prediction) -> None:
        if not as_json:
            click.echo("  ".join([item.name, *map(str, item.files)]))

    request = Request(report=lambda message: click.echo(message, err=True))
    how = Asked(batch_size, seed, checkpoint, device, page=opened)
    asked = [adjustable_layer(assignments, guidance, on_bad_sample)]
    # What a component prints must not get between a program and the JSON that it reads.
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        done = predictions(Path(directory), inputs, out, asked, how, request, tell)
    if as_json:
        print_json(done.document())
    else:
        click.echo(f"{len(done.items)} in {done.directory}, by the checkpoint of step {done.step}")
    if done.page is not None:
        open_file(done.page)

"""`trainkit evaluate`: measure a run's checkpoint on a split of its data."""

from __future__ import annotations

import click

from .request import adjustable_layer


@click.command()
@click.argument("directory", metavar="RUN")
@click.option("--split", default="test", show_default=True, metavar="train|val|test", help="Which split to measure on.")
@click.option(
    "--checkpoint",
    metavar="best|last|NAME",
    default="best",
    show_default=True,
    help="Which weights; a name is that of a folder in RUN/checkpoints.",
)
@click.option("--guidance", metavar="S", help="Strength of guidance; as --set task.guidance=S.")
@click.option("--set", "assignments", metavar="task.KEY=VALUE", multiple=True, help="What may change after training.")
@click.option("--device", metavar="auto|cpu|cuda[:N]", help="Where to compute; where the run did if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    directory: str,
    split: str,
    checkpoint: str,
    guidance: str | None,
    assignments: tuple[str, ...],
    device: str | None,
    as_json: bool,
) -> None:
    """Measure a run's checkpoint on a split of its data.

    \b
    trainkit evaluate runs/layout-...
    trainkit evaluate runs/layout-... --split val --checkpoint last
    """
    from .threads import wait_briefly

    wait_briefly()
    from trainkit.api import Request, evaluate

    from .tables import print_json

    asked = [adjustable_layer(assignments, guidance)]
    request = Request(asked, report=lambda message: click.echo(message, err=True))
    results = evaluate(directory, split, request, checkpoint=checkpoint, device=device)
    if as_json:
        print_json(results)
        return
    width = max(map(len, results))
    for tag, value in results.items():
        click.echo(f"{tag:<{width}}  {value:.4f}")

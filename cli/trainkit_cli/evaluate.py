"""`trainkit evaluate`: measure a run's checkpoint on a split of its data."""

from __future__ import annotations

import click


@click.command()
@click.argument("directory", metavar="RUN")
@click.option("--split", default="test", show_default=True, metavar="train|val|test", help="Which split to measure on.")
@click.option(
    "--checkpoint", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Which weights."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(directory: str, split: str, checkpoint: str, as_json: bool) -> None:
    """Measure a run's checkpoint on a split of its data.

    \b
    trainkit evaluate runs/layout-...
    trainkit evaluate runs/layout-... --split val --checkpoint last
    """
    from .threads import wait_briefly

    wait_briefly()
    from trainkit.api import Request, evaluate

    from .tables import print_json

    results = evaluate(
        directory, split, Request(report=lambda message: click.echo(message, err=True)), checkpoint=checkpoint
    )
    if as_json:
        print_json(results)
        return
    width = max(map(len, results))
    for tag, value in results.items():
        click.echo(f"{tag:<{width}}  {value:.4f}")

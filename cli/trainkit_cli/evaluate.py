"""`trainkit evaluate`: measure a run's checkpoint on a split of its data."""

from __future__ import annotations

from pathlib import Path

import click

from .request import adjustable_layer, checkpoint_option, on_bad_sample_option


@click.command()
@click.argument("directory", metavar="RUN")
@click.option("--split", metavar="train|val|test", help="Which split to measure on; test if not given.")
@click.option("--data", metavar="PATH", help="Other data than the run's: all of it is measured, none learned from.")
@checkpoint_option
@click.option("--guidance", metavar="S", help="Strength of guidance; as --set task.guidance=S.")
@click.option("--set", "assignments", metavar="task.KEY=VALUE", multiple=True, help="What may change after training.")
@on_bad_sample_option
@click.option("--device", metavar="auto|cpu|cuda[:N]", help="Where to compute; where the run did if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    directory: str,
    split: str | None,
    data: str | None,
    checkpoint: str,
    guidance: str | None,
    assignments: tuple[str, ...],
    on_bad_sample: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Measure a run's checkpoint on a split of its data, or on all of other data.

    \b
    trainkit evaluate runs/layout-...
    trainkit evaluate runs/layout-... --split val --checkpoint last
    trainkit evaluate runs/series-... --data ./next-month
    """
    from .threads import wait_briefly

    wait_briefly()
    from trainkit.api import Request, trained_results

    from .results import print_tables
    from .tables import print_json

    layer = adjustable_layer(assignments, guidance, on_bad_sample)
    request = Request(report=lambda message: click.echo(message, err=True))
    other = None if data is None else Path(data).expanduser()
    results = trained_results(Path(directory), split, other, checkpoint, [layer], device, request)
    if as_json:
        print_json(results["model"])
    else:
        print_tables("results (trivial baselines beside the model)", results, "see --json")

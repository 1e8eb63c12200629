"""`trainkit merge`: work what an adapter learned into the weights of its model, and show that nothing is lost."""

from __future__ import annotations

from pathlib import Path

import click

from .request import checkpoint_option


@click.command()
@click.argument("directory", metavar="RUN")
@click.option("--to", metavar="DIR", help="Write the merged model into a folder that is new or empty.")
@checkpoint_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(directory: str, to: str | None, checkpoint: str, as_json: bool) -> None:
    """Work what an adapter learned into the model, and show that nothing is lost.

    \b
    trainkit merge runs/recipes-...                       compare only
    trainkit merge runs/recipes-... --to ./recipes-t5     and write the merged model

    Compared are the outputs of the merged model, of the model with its adapter, and of the base. A merged model that
    answers otherwise is not written, nor one whose adapter changes nothing.
    """
    from .threads import wait_briefly

    wait_briefly()
    from trainkit.api import Request, merging

    from .tables import print_json
    from .written import print_exported, print_facts

    request = Request(report=lambda message: click.echo(message, err=True))
    done = merging(Path(directory), None if to is None else Path(to).expanduser(), checkpoint, request)
    if as_json:
        print_json(done.document())
        return
    print_facts(done.adapter)
    click.echo(f"outputs for {done.samples} samples of {done.split}, up to {done.largest:.4g}; largest differences:")
    print_facts({"merged - adapted": f"{done.merged:.3g}", "adapted - base": f"{done.learned:.3g}"})
    if done.exported is not None:
        print_exported(done.exported)

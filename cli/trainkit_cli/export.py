"""`trainkit export`: write the model of a run for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from .request import checkpoint_option


@click.command()
@click.argument("directory", metavar="RUN")
@click.option("--to", required=True, metavar="DIR", help="A folder that is new or empty.")
@checkpoint_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(directory: str, to: str, checkpoint: str, as_json: bool) -> None:
    """Write the model of a run for other programs.

    \b
    trainkit export runs/recipes-... --to ./recipes-t5
    trainkit export runs/recipes-... --to ./newest --checkpoint last

    The weights are a safetensors file beside config.json and what else the task gives, as a tokenizer. What an adapter
    learned is worked into them. The data that the run was trained on is not needed.
    """
    from .threads import wait_briefly

    wait_briefly()
    from trainkit.api import Request, exported

    from .tables import print_json
    from .written import print_exported

    request = Request(report=lambda message: click.echo(message, err=True))
    done = exported(Path(directory), Path(to).expanduser(), checkpoint, request)
    if as_json:
        print_json(done.document())
    else:
        print_exported(done)

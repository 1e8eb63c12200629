"""`trainkit show`: samples to look at, as they are and as augmenters change them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .request import blocked_names, layers, task_options

DEFAULT_OUT = "contact-sheet.png"
MOST = 50


@click.command()
@click.argument("data", required=False, metavar="[DATA]")
@task_options
@click.option("--config", metavar="FILE.toml", type=click.Path(dir_okay=False, path_type=Path), help="A config file.")
@click.option("--strategy", metavar="NAME", help="How to train; it may name augmenters.")
@click.option("--augmenter", metavar="NAME", multiple=True, help="What varies samples; repeatable; as --augment.")
@click.option("--augment", is_flag=True, help="Show variants beside each sample, by the augmenters of a run.")
@click.option("--samples", type=click.IntRange(1, MOST), default=6, show_default=True, help="How many samples.")
@click.option(
    "--variants", type=click.IntRange(1, MOST), default=5, show_default=True, help="How many variants of each."
)
@click.option("--seed", metavar="N", help="Decides about the variants, as in a run.")
@click.option("--out", metavar="FILE.png", help=f"The picture; a new {DEFAULT_OUT} if not given.")
@click.option("--open", "opened", is_flag=True, help="Open the picture.")
def command(
    data: str | None,
    config: Path | None,
    assignments: tuple[str, ...],
    blocked: tuple[str, ...],
    augment: bool,
    samples: int,
    variants: int,
    out: str | None,
    opened: bool,
    **flags: Any,
) -> None:
    """Show samples as they are and as augmenters change them.

    \b
    trainkit show ./pages                      samples as they are
    trainkit show ./pages --augment --open     with variants, as a run would make them
    trainkit show --augmenter structure        the embedded sample, by this augmenter

    The picture has a row for each sample. Samples are spread over the training split.
    """
    from trainkit.api import Request, contact_sheet
    from trainkit.registry import Registry

    from .opening import open_file

    asked = layers(config, assignments, {"data": data, **flags})
    request = Request(asked, registry=Registry(blocked=blocked_names(blocked)))
    sheet = contact_sheet(request, samples, variants if augment or flags["augmenter"] else 0)
    path = sheet.save(out if out is not None else _free(DEFAULT_OUT))
    by = f", {variants} variants each by {', '.join(sheet.augmenters)}" if sheet.augmenters else ""
    click.echo(f"{path}: {len(sheet.samples)} samples{by}")
    if opened:
        open_file(path)


def _free(name: str) -> Path:
    """Return the path of a file that does not exist yet."""
    path, number = Path(name), 1
    while path.exists():
        number += 1
        path = Path(name).with_stem(f"{Path(name).stem}-{number}")
    return path

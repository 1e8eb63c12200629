"""The options that commands share, and the request they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from trainkit.kinds import LIST_KINDS

if TYPE_CHECKING:
    from trainkit.config import Layer

PLAIN = {
    "data": "data",
    "epochs": "loop.epochs",
    "max_steps": "loop.max_steps",
    "batch_size": "loop.batch_size",
    "folds": "folds",
    "seed": "seed",
    "device": "device",
    "devices": "devices",
    "precision": "precision",
    "out": "out",
    "name": "name",
    "on_bad_sample": "task.on_bad_sample",
}
TEXTS = ("data", "device", "precision", "out", "name", "on_bad_sample")

_HELP = {
    "task": "What is learned: data, model, predictions.",
    "strategy": "How to train; 'auto' chooses by the number of training samples.",
    "loss": "What is made small.",
    "optimizer": "How weights change.",
    "scheduler": "How the learning rate changes.",
    "adapter": "Which weights learn.",
    "augmenter": "What varies training samples; repeatable, 'none' for none.",
    "metric": "What is measured; repeatable.",
    "callback": "What else happens; repeatable, adds to the others; no:NAME takes one away, none all.",
}

_SET = click.option(
    "--set", "assignments", metavar="KEY=VALUE", multiple=True, help="Any setting or option; repeatable."
)
_BLOCKED = click.option("-p", "blocked", metavar="no:PLUGIN", multiple=True, help="Leave a plugin out, as -p no:lion.")
checkpoint_option = click.option(
    "--checkpoint",
    metavar="best|last|NAME",
    default="best",
    show_default=True,
    help="Which weights; a name is that of a folder in RUN/checkpoints.",
)
on_bad_sample_option = click.option(
    "--on-bad-sample", metavar="stop|skip", help="What happens at samples that cannot be used; as task.on_bad_sample."
)

_OPTIONS: list[Callable[[Any], Any]] = [
    click.argument("config", required=False, type=click.Path(dir_okay=False, path_type=Path), metavar="[CONFIG.toml]"),
    *(click.option(f"--{kind}", metavar="NAME", help=_HELP[kind]) for kind in ("task", "strategy")),
    click.option("--data", metavar="PATH", help="Folder or file of the data; the task's embedded sample if not given."),
    *(
        click.option(f"--{kind}", metavar="NAME", help=_HELP[kind])
        for kind in ("loss", "optimizer", "scheduler", "adapter")
    ),
    *(click.option(f"--{kind}", metavar="NAME", multiple=True, help=_HELP[kind]) for kind in LIST_KINDS),
    click.option("--epochs", metavar="N", help="Length in epochs, over all stages in proportion."),
    click.option("--max-steps", metavar="N", help="End at this optimizer step at the latest."),
    click.option("--batch-size", metavar="N", help="Samples of a micro-batch."),
    click.option("--folds", metavar="K", help="Cross-validate: a run for each fold, then one on all their samples."),
    click.option("--seed", metavar="N", help="Decides about weights, order, augmentation and dropout."),
    click.option("--device", metavar="auto|cpu|cuda[:N]", help="Where to compute."),
    click.option("--devices", metavar="N", help="How many devices share each batch, a process for each."),
    click.option("--precision", metavar="auto|fp32|bf16|fp16", help="Arithmetic of forward and backward passes."),
    on_bad_sample_option,
    _SET,
    _BLOCKED,
]
# What looks at data without training on it takes the task and what is the task's.
_TASK_OPTIONS = [click.option("--task", metavar="NAME", help=_HELP["task"]), on_bad_sample_option, _SET, _BLOCKED]


def request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of what looks at data without training on it."""
    for option in reversed(_TASK_OPTIONS):
        command = option(command)
    return command


def adjustable_layer(assignments: Sequence[str], guidance: str | None, on_bad_sample: str | None = None) -> Layer:
    """Return what a user wants changed about a trained run's task."""
    from trainkit.config import Value
    from trainkit.sources import override_layer, parse_value

    layer = override_layer(assignments)
    if guidance is not None:
        layer["task.guidance"] = Value(parse_value(guidance), "--guidance")
    if on_bad_sample is not None:
        layer["task.on_bad_sample"] = Value(on_bad_sample, "--on-bad-sample")
    return layer


def layers(config: Path | None, assignments: Sequence[str], flags: dict[str, Any]) -> list[Layer]:
    """Return what the user said as layers, lowest first: file, environment, flags; a flag goes before --set."""
    from trainkit.config import Value, layer_of
    from trainkit.sources import environment_layer, override_layer, parse_value, read_file

    found = [read_file(config)] if config is not None else []
    found.append(environment_layer())
    # One layer: a flag that names a component does not overrule the options that --set gives to it.
    own = override_layer(assignments)
    for name, given in flags.items():
        if given is None or given == ():
            continue
        flag = f"--{name.replace('_', '-')}"
        if name in PLAIN:
            own[PLAIN[name]] = Value(str(given) if name in TEXTS else parse_value(given), flag)
        else:
            own |= layer_of({name: list(given) if name in LIST_KINDS else given}, flag)
    return [*found, own]


def arguments_of(
    config: Path | None, assignments: Sequence[str], blocked: Sequence[str], flags: dict[str, Any]
) -> list[str]:
    """Return what `layers` was given as the arguments of a command."""
    found = [str(config)] if config is not None else []
    for name, given in flags.items():
        values = given if isinstance(given, tuple) else () if given is None else (given,)
        for value in values:
            found += [f"--{name.replace('_', '-')}", str(value)]
    for assignment in assignments:
        found += ["--set", assignment]
    for name in blocked:
        found += ["-p", name]
    return found


def blocked_names(values: Sequence[str]) -> tuple[str, ...]:
    """Return the plugins that `-p no:NAME` leaves out."""
    for value in values:
        if not value.startswith("no:"):
            raise click.UsageError(f"-p {value}: write -p no:NAME to leave a plugin out")
    return tuple(value[3:] for value in values)

"""The public surface, written down: whoever widens or narrows it sees it in this file's difference."""

from __future__ import annotations

import inspect

import click
import trainkit
from trainkit import hooks
from trainkit.errors import ExitCode
from trainkit_cli.commands import COMMANDS, group

SHARED = {
    "config", "--task", "--strategy", "--data", "--loss", "--optimizer", "--scheduler", "--adapter", "--augmenter",
    "--metric", "--callback", "--epochs", "--max-steps", "--batch-size", "--folds", "--seed", "--device", "--devices",
    "--precision", "--set", "--on-bad-sample", "-p",
}  # fmt: skip
OPTIONS = {
    "run": SHARED | {"--out", "--name", "--resume", "--json", "--quiet"},
    "plan": SHARED | {"--why", "--diff", "--no-cost", "--prices", "--json"},
    "lr-find": SHARED | {"--min", "--max", "--steps", "--rule", "--axis", "--out", "--json", "--quiet"},
    "validate": {"data", "--task", "--on-bad-sample", "--set", "-p", "--all", "--json"},
    "show": {
        "data", "--task", "--on-bad-sample", "--set", "-p", "--config", "--strategy", "--augmenter", "--augment",
        "--samples", "--variants", "--seed", "--out", "--open",
    },
    "evaluate": {
        "directory", "--split", "--data", "--checkpoint", "--guidance", "--set", "--on-bad-sample", "--device",
        "--json",
    },
    "predict": {
        "directory", "inputs", "--out", "--open", "--batch-size", "--seed", "--guidance", "--set", "--on-bad-sample",
        "--checkpoint", "--device", "--json", "--jsonl",
    },
    "merge": {"directory", "--to", "--checkpoint", "--json"},
    "export": {"directory", "--to", "--checkpoint", "--json"},
    "ablate": {"directory", "--only", "--seeds", "--max-steps", "--out", "--plan", "--json", "--quiet"},
    "plugins": {"--kind", "--json"},
    "completion": {"shell"},
}  # fmt: skip


def longest_names(command: click.Command) -> set[str]:
    return {max(parameter.opts, key=len) for parameter in command.params}


def test_names_of_the_package():
    assert trainkit.__all__ == [
        "Answer", "DataError", "ExitCode", "Finding", "Inspection", "LossOutput", "Panel", "Plan", "PluginError",
        "Registry", "Selection", "Setting", "Situation", "Splits", "Stage", "SumMetric", "Technique", "TrainkitError",
        "UsageError", "__version__", "ablate", "evaluate", "export", "find_learning_rate", "hookimpl", "merge",
        "predict", "preview", "reading", "resume", "run", "show", "validate",
    ]  # fmt: skip
    for name in trainkit.__all__:
        assert getattr(trainkit, name) is not None


def test_kinds_hooks_and_events():
    assert hooks.KINDS == (
        "strategy", "task", "loss", "augmenter", "optimizer", "scheduler", "metric", "adapter", "callback",
    )  # fmt: skip
    kind_hooks = {name for name in vars(hooks.KindHooks) if name[0] != "_"}
    assert kind_hooks == {hooks.hook_name(kind) for kind in hooks.KINDS}
    functions = {name: function for name, function in vars(hooks.Events).items() if name[0] != "_"}
    events = {name: list(inspect.signature(function).parameters)[1:] for name, function in functions.items()}
    assert events == {
        "on_run_start": ["run"],
        "on_stage_start": ["run", "stage"],
        "on_epoch_start": ["run"],
        "select_samples": ["run", "indices"],
        "on_loss": ["run", "batch", "loss", "outputs"],
        "on_gradients": ["run", "norm"],
        "on_step": ["run"],
        "on_log": ["run", "row"],
        "on_pictures": ["run", "pictures"],
        "on_texts": ["run", "texts"],
        "before_evaluation": ["run", "split"],
        "after_evaluation": ["run", "split", "results"],
        "swap_weights_in": ["run"],
        "swap_weights_out": ["run"],
        "on_checkpoint": ["run", "path"],
        "on_epoch_end": ["run"],
        "on_stage_end": ["run", "stage"],
        "on_run_end": ["run", "status"],
    }
    given = {kind: names for kind, names in hooks.RUNTIME_PARAMETERS.items() if names}
    assert given == {"optimizer": ("params",), "scheduler": ("optimizer", "total_steps")}
    assert tuple(hooks.RUNTIME_PARAMETERS) == hooks.KINDS


def test_exit_codes():
    assert {code.name: code.value for code in ExitCode} == {
        "DONE": 0, "RUN_FAILED": 1, "USAGE": 2, "INTERNAL": 3, "PLUGIN": 4, "DATA": 5, "CHECKPOINT": 6, "RESOURCE": 7,
        "RANKS": 8, "STOPPED": 75, "INTERRUPTED": 130, "TERMINATED": 143,
    }  # fmt: skip


def test_commands_and_options():
    context = click.Context(group)
    commands = {name: group.get_command(context, name) for name in COMMANDS}
    assert {name: longest_names(command) for name, command in commands.items()} == OPTIONS
    assert longest_names(group) == {"--version", "--debug"}
    plugins = commands["plugins"]
    assert {name: longest_names(command) for name, command in plugins.commands.items()} == {
        "show": {"component", "--json"},
        "check": {"components", "--limit", "--json"},
        "registry": {"action", "root"},
    }


def test_the_one_line_help_is_that_of_the_command():
    context = click.Context(group)
    for name, line in COMMANDS.items():
        assert (group.get_command(context, name).help or "").splitlines()[0] == line

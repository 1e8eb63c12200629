"""The command group: subcommands that are imported when they are called."""

from __future__ import annotations

import os

import click
from trainkit import __version__

COMMANDS = {
    "validate": "Find out what is wrong with data before a run.",
    "show": "Show samples as they are and as augmenters change them.",
    "plan": "Show what a run would do, what it would cost, and why.",
    "lr-find": "Find a learning rate by a test of many, before a run.",
    "run": "Train a model from named parts.",
    "evaluate": "Measure a run's checkpoint on a split of its data, or on all of other data.",
    "ablate": "Find out what each part of a run contributes.",
    "predict": "Answer new inputs with the model of a run.",
    "merge": "Work what an adapter learned into the model, and show that nothing is lost.",
    "export": "Write the model of a run for other programs.",
    "plugins": "List what is installed, what is broken, what could be installed.",
    "completion": "Print the script that completes commands in a shell.",
}
SETTINGS = {"help_option_names": ["-h", "--help"]}
WIDEST = 120


class LazyGroup(click.Group):
    """Import the module of a command when it is called; its help line is known without it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        command: click.Command = import_module(f"trainkit_cli.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from trainkit.errors import did_you_mean

            ctx.fail(f"no command named '{name}'{did_you_mean(name, COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="trainkit", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error, as TRAINKIT_DEBUG=1 does.")
def group(debug: bool) -> None:
    """Train PyTorch models from named parts.

    \b
    trainkit run                              train on the embedded sample
    trainkit run --data ./pages --epochs 20   train on your own data
    trainkit plan                             stages, steps and cost of a run
    trainkit predict runs/layout-... a.png    answer new inputs with its model
    trainkit plugins                          see what parts there are

    'trainkit COMMAND --help' explains a command. Exit codes: 0 done, 1 the run failed, 2 wrong request,
    3 a fault of trainkit, 4 plugin, 5 data, 6 checkpoint, 7 disk or memory, 75 stopped with its state saved.
    """


def call(arguments: list[str]) -> int:
    """Run a command and return its exit code; what click refuses is said here."""
    try:
        result = group.main(arguments, prog_name="trainkit", standalone_mode=False, terminal_width=_width())
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except click.ClickException as error:
        error.show()
        return error.exit_code
    # A command that ends through its context, as --version does, hands its exit code back as the result.
    return result if isinstance(result, int) else 0


def _width() -> int:
    """Return the width of help texts. Left to itself, click imports shutil for it, and that all compression modules."""
    try:
        columns = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(1).columns
    except (OSError, ValueError):
        columns = 80
    return max(50, min(columns, WIDEST) - 2)

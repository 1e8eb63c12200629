"""The command `trainkit`: subcommands that are imported when they are called, and the one place where errors end."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click
from trainkit import __version__
from trainkit.errors import ExitCode, TrainkitError, nearest

COMMANDS = {
    "run": "Train a model from named parts.",
    "plan": "Show what a run would do, what it would cost, and why.",
    "evaluate": "Measure a run's checkpoint on a split of its data.",
    "plugins": "List what is installed, what is broken, what could be installed.",
    "completion": "Print the script that completes commands in a shell.",
}
DEBUG = "TRAINKIT_DEBUG"


class LazyGroup(click.Group):
    """Import the module of a command when it is called; its help line is known without it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        command: click.Command = import_module(f"trainkit_cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            close = nearest(name, COMMANDS)
            ctx.fail(f"no command named '{name}'" + (f"; did you mean '{close}'?" if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="trainkit", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def group(ctx: click.Context, debug: bool) -> None:
    """Train PyTorch models from named parts.

    \b
    trainkit run                              train on the embedded sample
    trainkit run --data ./pages --epochs 20   train on your own data
    trainkit plan                             see stages, steps and cost before anything is spent
    trainkit plugins                          see what parts there are

    'trainkit COMMAND --help' explains a command. Exit codes: 0 done, 1 the run failed, 2 wrong request, 3 a fault of
    trainkit, 4 plugin, 5 data, 6 checkpoint, 7 disk or memory, 75 stopped with its state saved.
    """
    ctx.obj = debug or bool(os.environ.get(DEBUG))


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: every error a user can cause ends as one message and its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = bool(os.environ.get(DEBUG)) or "--debug" in arguments[:1]
    try:
        sys.exit(_run(arguments))
    except TrainkitError as error:
        if debug:
            raise
        click.echo(f"error: {error.render()}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        _report_fault(error)
        sys.exit(ExitCode.INTERNAL)


def _run(arguments: list[str]) -> int:
    try:
        result = group.main(arguments, prog_name="trainkit", standalone_mode=False)
    except click.Abort:
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    # A command that exits through its context hands its code back as the result.
    return result if isinstance(result, int) else ExitCode.DONE


def _report_fault(error: Exception) -> None:
    import tempfile
    import traceback

    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="trainkit-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            traceback.print_exception(error, file=file)
        where = f"  where: the traceback is in {file.name}\n"
    except OSError:
        where = ""
    text = str(error).splitlines()
    click.echo(
        f"error: this is a fault of trainkit: {type(error).__name__}{': ' + text[0] if text else ''}\n"
        f"{where}  do:    please report it with the traceback; 'trainkit --debug ...' shows it here",
        err=True,
    )

"""`trainkit completion`: the script that completes commands and options in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that completes commands in a shell.

    \b
    trainkit completion bash >> ~/.bashrc
    trainkit completion zsh >> ~/.zshrc
    trainkit completion fish > ~/.config/fish/completions/trainkit.fish
    """
    from .commands import group

    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(group, {}, "trainkit", "_TRAINKIT_COMPLETE").source())

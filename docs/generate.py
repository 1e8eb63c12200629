"""Write the reference pages of the site from the code, or check that they are what the code says.

    python docs/generate.py write
    python docs/generate.py check

The pages under docs/reference hold every command with its options, every setting, every component of registry.toml with
its options, and every hook and event with its arguments.
"""

from __future__ import annotations

import html
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import click
from trainkit.catalogue import read_catalogue
from trainkit.hooks import RUNTIME_PARAMETERS, Events, KindHooks, hook_name
from trainkit.kinds import KINDS, group
from trainkit.loader.options import type_text
from trainkit.registry import Registry
from trainkit.settings import SECTIONS, RunSettings, describe_settings
from trainkit.tomltext import show
from trainkit_cli.commands import SETTINGS
from trainkit_cli.commands import group as trainkit
from trainkit_cli.plugins import describe

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
NOTE = "<!-- Generated: python docs/generate.py write -->"


def page(title: str, opening: str, body: Iterable[str]) -> str:
    """Return the text of a page."""
    return "\n".join([NOTE, "", f"# {title}", "", opening, "", *body]).rstrip() + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]


def code(text: str) -> str:
    """Return a text as code in a line. One with a bar is HTML: renderers disagree about escaping bars in tables."""
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def cli_page() -> str:
    """Return the page of the commands."""
    body = [line for name, command in walk(trainkit, "trainkit") for line in command_lines(name, command)]
    return page("Commands", "`--help` of a command says the same.", body)


def walk(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Yield (full name, command) of a command and all below it."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from walk(found, f"{name} {below}")


def command_lines(name: str, command: click.Command) -> list[str]:
    """Return heading, usage, explanation and options of a command."""
    # A command keeps the help option of the first context that asks for it: it must be the one of the command line.
    context = click.Context(command, info_name=name, help_option_names=SETTINGS["help_option_names"])
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines = [f"## {name}", "", "```text", usage, "```", ""]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):
            lines += ["```text", paragraph.removeprefix("\b\n"), "```", ""]
        else:
            lines += [" ".join(paragraph.split()), ""]
    options = [option for option in command.params if isinstance(option, click.Option)]
    rows = [option_row(option, context) for option in options]
    return [*lines, *table(["option", "default", "meaning"], rows), ""] if rows else lines


def option_row(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    """Return flags, default and help of an option."""
    value = "" if option.is_flag else f" {option.make_metavar(context)}"
    default = code(str(option.default)) if option.show_default else ""
    return ", ".join(code(flag + value) for flag in option.opts), default, option.help or ""


def settings_page() -> str:
    """Return the page of the settings that belong to no component."""
    opening = (
        "Settings that belong to no component; options of components are on [their own page](components.md). "
        "A default is what holds where neither task nor strategy nor user says anything."
    )
    rows = [
        (code(key), code(setting_type(key)), code(show(default)), text) for key, default, text in describe_settings()
    ]
    return page("Settings", opening, table(["key", "type", "default", "meaning"], rows))


def setting_type(key: str) -> str:
    """Return the type of a setting in words."""
    section, _, name = key.rpartition(".")
    field = (SECTIONS[section] if section else RunSettings).model_fields[name]
    return type_text(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation)


def components_page() -> str:
    """Return the page of every component of registry.toml."""
    registry = Registry()
    body: list[str] = []
    offers = read_catalogue(ROOT / "registry.toml")
    for kind in KINDS:
        body += [f"## {kind}", ""]
        for offer in (offer for offer in offers if offer.kind == kind):
            found = describe(registry.load(kind, offer.name))
            body += component_lines(offer.summary, found)
    opening = "Every component of this repository; `trainkit plugins show KIND/NAME` says the same of any other."
    return page("Components", opening, body)


def component_lines(summary: str, found: dict[str, Any]) -> list[str]:
    """Return heading, origin, summary and options of a component."""
    lines = [f"### {found['kind']} {found['name']}", "", f"{summary}. Distribution `{found['distribution']}`.", ""]
    for key in ("reads", "gives"):
        if found[key]:
            lines += [f"{key.capitalize()}: {', '.join(map(code, found[key]))}.", ""]
    rows = [
        (
            code(option["name"]),
            code(option["type"]),
            "required" if option["required"] else code(show(option["default"])),
            option["help"],
        )
        for option in found["options"]
    ]
    return [*lines, *(table(["option", "type", "default", "meaning"], rows) if rows else ["No options."]), ""]


def hooks_page() -> str:
    """Return the page of every hook and event."""
    body = ["## Hooks of the kinds", ""]
    for kind in KINDS:
        given = ", ".join(map(code, RUNTIME_PARAMETERS[kind])) or "nothing"
        body += hook_lines(getattr(KindHooks, hook_name(kind)))
        body += [f"Entry-point group: `{group(kind)}`. What the core passes to the target itself: {given}.", ""]
    body += ["## Events", "", "They are listed in the order in which a run announces them.", ""]
    for name, event in vars(Events).items():
        if not name.startswith("_"):
            body += hook_lines(event)
    opening = (
        "The contract between core and components. A plugin implements the hook of its kind; any live component "
        "may implement any event, with all of the arguments or with some."
    )
    return page("Hooks and events", opening, body)


def hook_lines(function: Callable[..., Any]) -> list[str]:
    """Return the heading with exact arguments, and the explanation of a hook."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return [
        f"### `{signature(function)}`",
        "",
        *(line for text in paragraphs for line in (" ".join(text.split()), "")),
    ]


def signature(function: Callable[..., Any]) -> str:
    """Return name and arguments of a hook, without self."""
    arguments = [name for name in inspect.signature(function).parameters if name != "self"]
    return f"{function.__name__}({', '.join(arguments)})"


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "settings.md": settings_page,
    "components.md": components_page,
    "hooks.md": hooks_page,
}


def drifted() -> list[str]:
    """Return the names of the pages that are not what `write` would write."""
    files = {name: REFERENCE / name for name in PAGES}
    return [
        name
        for name, make in PAGES.items()
        if not files[name].exists() or files[name].read_text(encoding="utf-8") != make()
    ]


def main(arguments: Sequence[str]) -> int:
    """Run `write` or `check`; return the exit code."""
    if list(arguments) not in (["write"], ["check"]):
        print("usage: python docs/generate.py write|check", file=sys.stderr)
        return 2
    if arguments[0] == "write":
        REFERENCE.mkdir(exist_ok=True)
        for name, make in PAGES.items():
            (REFERENCE / name).write_text(make(), encoding="utf-8")
        return 0
    if names := drifted():
        print(f"drifted: {', '.join(names)}; python docs/generate.py write", file=sys.stderr)
    return int(bool(names))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

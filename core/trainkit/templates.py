"""Instruction formats: ways to ask for a text, each with {text} once. Pure functions for tasks and augmenters."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import UsageError

TEXT = "{text}"
PLAIN = (TEXT,)


def checked(templates: Sequence[str], where: str = "task.templates") -> tuple[str, ...]:
    """Return templates, the plain one where there are none; raise UsageError for one without {text}, or with two."""
    for template in templates:
        if template.count(TEXT) != 1:
            raise UsageError(
                f"{where}: {template!r} holds {TEXT} {template.count(TEXT)} times",
                why="the text of a sample is put in its place",
                do=f"write it once, as 'Summarise: {TEXT}'",
            )
    return tuple(dict.fromkeys(templates)) or PLAIN


def rendered(template: str, text: str) -> str:
    """Return a text in a template; braces of the text mean nothing."""
    before, _, after = template.partition(TEXT)
    return before + text + after


def stripped(text: str, templates: Sequence[str]) -> str:
    """Return a text without the templates that it is in already, lest prompts nest."""
    while (inner := _without(text, templates)) is not None:
        text = inner
    return text


def _without(text: str, templates: Sequence[str]) -> str | None:
    """Return a text without the template with most words around it, or None where it is in none or would be empty."""
    for before, after in sorted((_sides(template) for template in templates), key=lambda sides: -len("".join(sides))):
        is_in = text.casefold().startswith(before.casefold()) and text.casefold().endswith(after.casefold())
        if before + after and is_in and len(text) > len(before) + len(after):
            return text[len(before) : len(text) - len(after)].strip() or None
    return None


def _sides(template: str) -> tuple[str, str]:
    before, _, after = template.partition(TEXT)
    return before, after

"""Sections: the ingredients and the steps of a text that should be a recipe, under its headers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .quantities import has_quantity
from .verbs import has_action

INGREDIENTS, STEPS = "ingredients", "steps"
HEADERS = {"ingredients": INGREDIENTS, "instructions": STEPS, "directions": STEPS, "steps": STEPS}
_NAMES = "|".join(HEADERS)
_TITLES = "|".join(name.title() for name in HEADERS) + "|" + _NAMES.upper()
_HEADER = re.compile(rf"[\s#*_]*({_NAMES})[\s*_]*:?[\s*_]*#*\s*", re.IGNORECASE)
_LISTED = r"[-*\u2022\d\u00bc-\u00be\u2150-\u215e]"
_INLINE = re.compile(rf"[#*_]*\b(?:(?i:({_NAMES}))[*_]*\s*:[*_]*|({_TITLES})\b(?=\s+{_LISTED}))")
_HEADING = re.compile(r"\s*(#{1,6})\s+\S")
_SECTION_LEVEL = 2
_MARKER = re.compile(r"(?<!\S)(\d{1,2})[.)]\s+")
# A hyphen between numbers is a range, one between words within a word: bullets stand apart, after a word.
_BULLETS = re.compile(r"(?<=[^\d\s])\s+[-*\u2022]\s+")
_BULLET = re.compile(r"\s*(?:[-*+\u2022\u00b7\u2013\u2014]\s*)*(?:\[[ xX]?\]\s*)?(?:\d{1,3}[.)](?!\S)\s*)?")


@dataclass(frozen=True)
class Sections:
    """Hold what was found in a text.

    Args:
        ingredients: lines under a header Ingredients, without bullets and list numbers.
        steps: lines under a header Instructions, Directions or Steps, likewise.
        headers: which of the two sections have a header.
    """

    ingredients: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    headers: frozenset[str] = frozenset()


def sections_of(text: str) -> Sections:
    """Return the ingredients and steps of a text.

    A header is a whole line; case, '#', '*' and a colon do not matter, and a step that mentions ingredients is none.
    A text of a single line is also split at header words with a colon, or with a capital and a list or an amount after
    them, and at '1.', '2.', ... in this order and bullets [reading]. Other Markdown headings are no lines, and those of
    the first two levels end a section; 'For the sauce:' without a quantity (or an action verb, among steps) is the
    heading of a group and no line either [reading].

    Source: 6.4.
    """
    lines = text.strip().splitlines()
    pieces = _pieces_of_line(lines[0]) if len(lines) == 1 else _pieces_of_lines(lines)
    found: dict[str, list[str]] = {}
    for section, line in pieces:
        items = found.setdefault(section, [])
        item = line[_BULLET.match(line).end() :].strip()  # type: ignore[union-attr]
        if item and not _is_group(section, item):
            items.append(item)
    return Sections(tuple(found.get(INGREDIENTS, ())), tuple(found.get(STEPS, ())), frozenset(found))


def _is_group(section: str, item: str) -> bool:
    tells = has_quantity if section == INGREDIENTS else has_action
    return item.rstrip("*_ ").endswith(":") and not tells(item)


def _pieces_of_lines(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (section, line); a header yields an empty line."""
    section = ""
    for line in lines:
        if header := _HEADER.fullmatch(line):
            section = HEADERS[header[1].lower()]
            yield section, ""
        elif heading := _HEADING.match(line):
            section = section if len(heading[1]) > _SECTION_LEVEL else ""
        elif section:
            yield section, line


def _pieces_of_line(line: str) -> Iterator[tuple[str, str]]:
    """Yield (section, item); a header yields an empty item."""
    headers = list(_INLINE.finditer(line))
    for place, header in enumerate(headers, 1):
        end = headers[place].start() if place < len(headers) else len(line)
        section = HEADERS[(header[1] or header[2]).lower()]
        yield section, ""
        for part in _numbered(line[header.end() : end]):
            yield from ((section, item) for item in _BULLETS.split(part))


def _numbered(text: str) -> Iterator[str]:
    """Yield the parts of a text between '1.', '2.', ...; a number out of order, as of a temperature, marks nothing."""
    start, number = 0, 1
    for marker in _MARKER.finditer(text):
        if int(marker[1]) == number:
            yield text[start : marker.start()]
            start, number = marker.end(), number + 1
    yield text[start:]

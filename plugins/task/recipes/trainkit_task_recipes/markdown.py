"""A recipe in Markdown: headings that vary, lists with lines that go on, links, pictures, emoji."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .cleaning import tidy
from .recipe import Recipe, unmarked

INGREDIENTS, STEPS = "ingredients", "steps"
_KINDS = (
    (INGREDIENTS, re.compile(r"\bingredients?\b", re.IGNORECASE)),
    (STEPS, re.compile(r"\b(?:directions?|instructions?|steps?|method|procedure|preparations?)\b", re.IGNORECASE)),
)
_HEAD = re.compile(r"\A\s*---[ \t]*\n.*?\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*")
_SECTION_LEVEL = 2
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s+(.*)")
_PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_EMPHASIS = re.compile(r"(?<!\w)(\*\*|__|\*|_|`)(?=\S)(.+?)(?<=\S)\1(?!\w)")
_EMOJI = re.compile("[\u2600-\u27bf\u2b00-\u2bff\ufe0f\u200d\U0001f000-\U0001faff]")


def recipe_of(text: str, title: str) -> Recipe:
    """Return the recipe of a Markdown file.

    Headings of the first two levels begin a section: of ingredients, or of steps (directions, instructions, steps,
    method, procedure, preparation), by a word in them; all others are left out. Deeper ones head a group of
    ingredients. Of a section with a list the items count, with the lines that go on; of one without, its paragraphs.

    Args:
        text: the whole file.
        title: of the dish, from its head; its first heading if empty.
    """
    found: dict[str, list[str]] = {INGREDIENTS: [], STEPS: []}
    first = section = ""
    for level, name, block in _blocks(_HEAD.sub("", text)):
        if 0 < level <= _SECTION_LEVEL:
            section = next((kind for kind, words in _KINDS if words.search(name)), "")
            first = first or (name if level == 1 else "")
        elif section == INGREDIENTS and name:
            found[section].append(f"{name.rstrip(':')}:")
        if section:
            found[section] += filter(None, map(plain, _items(block)))
    return Recipe(plain(title) or first, _without_empty_groups(found[INGREDIENTS]), unmarked(found[STEPS]))


def _blocks(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the level and name of each heading with the lines below it; first those above all, with level 0."""
    level, name, block = 0, "", list[str]()
    for line in text.splitlines():
        if (heading := _HEADING.fullmatch(line.strip())) is None:
            block.append(line)
        else:
            yield level, name, block
            level, name, block = len(heading[1]), plain(heading[2]), []
    yield level, name, block


def _items(block: list[str]) -> Iterator[str]:
    """Yield the items of a list with the lines that go on; where there is no list, the paragraphs."""
    has_list = any(_ITEM.fullmatch(line) for line in block)
    item = ""
    for line in [*block, ""]:
        mark = _ITEM.fullmatch(line)
        if mark is not None or not line.strip():
            if item:
                yield item
            item = mark[1] if mark is not None else ""
        elif item or not has_list:
            item = f"{item} {line.strip()}".strip()


def plain(text: str) -> str:
    """Return a line without pictures, addresses of links, emphasis and emoji."""
    text = _LINK.sub(r"\1", _PICTURE.sub("", text))
    return tidy(_EMOJI.sub("", _EMPHASIS.sub(r"\2", text)))


def _without_empty_groups(lines: Sequence[str]) -> tuple[str, ...]:
    following = [*lines[1:], ":"]
    return tuple(line for line, after in zip(lines, following, strict=False) if not (line[-1:] == after[-1:] == ":"))

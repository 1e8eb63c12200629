"""Cleaning of a line of text: HTML that was left in, spaces. What is repaired is told by whoever calls."""

from __future__ import annotations

import html
import re
import unicodedata

# A name in brackets, or what is left of a link whose opening bracket was lost.
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_REMAINS = re.compile(r"\b[a-z]+:[A-Za-z]+\s+id=\"[^\"]*\"|/[a-z]+:[A-Za-z]+<")
_CLOSED = re.compile(r"</([A-Za-z][\w-]*:[\w-]+)>")
_ENTITY = re.compile(r"&(#?)(\w{2,});")
_DASHES = {"endash": "\u2013", "emdash": "\u2014"}
_DEGREES = re.compile(r"(?<=\d)&de\w*;(?=\s*[CF]\b)")
_SPACES = re.compile(r"\s+")


def has_markup(text: str) -> bool:
    """Return whether a text holds HTML: a tag, or an entity."""
    return _TAG.search(text) is not None or _ENTITY.search(text) is not None


def without_markup(text: str) -> str:
    """Return a text without tags, and with the letters that entities stand for.

    What is no entity of HTML, as '&ntilede;', becomes the letter it begins with: an accent is lost, not a letter.
    """
    if "<" not in text and "&" not in text:
        return text
    for name in set(_CLOSED.findall(text)):
        # A link whose opening bracket was lost leaves its name behind.
        text = re.sub(rf"(?<!</){re.escape(name)}", " ", text)
    text = _REMAINS.sub("", _TAG.sub("", _DEGREES.sub("\u00b0", text)))
    return _ENTITY.sub(_letter, html.unescape(text))


def _letter(entity: re.Match[str]) -> str:
    is_number, name = entity.groups()
    return "" if is_number else _DASHES.get(name.lower(), name[0] if name[0].isalpha() else "")


def tidy(text: str) -> str:
    """Return a text in one line: composed letters (NFC), one space where there were several, none around it."""
    return _SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip()

"""Verbs of cooking with their inflections, found as whole words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

VERBS = (
    *("mix", "stir", "combine", "add", "heat", "cook", "bake", "boil", "fry", "saute", "chop", "dice", "slice"),
    *("pour", "serve", "place", "preheat", "season", "garnish", "blend", "whisk", "fold", "knead", "simmer"),
    *("roast", "drain"),
)
IRREGULAR = {"saute": ("saute", "sautes", "sauteed", "sauteing")}
_VOWELS = "aeiou"
# One stressed vowel before one final consonant doubles it: stirring, but not seasoning, heating or mixing.
_DOUBLED = re.compile(r"[^aeiou]+[aeiou][^aeiouwxy]")


def inflected(verb: str) -> tuple[str, ...]:
    """Return a verb with its forms in -s, -ed and -ing."""
    if verb in IRREGULAR:
        return IRREGULAR[verb]
    if verb.endswith("e"):
        return verb, f"{verb}s", f"{verb}d", f"{verb[:-1]}ing"
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        return verb, f"{verb[:-1]}ies", f"{verb[:-1]}ied", f"{verb}ing"
    stem = verb + verb[-1] if _DOUBLED.fullmatch(verb) else verb
    third = "es" if verb.endswith(("s", "x", "z", "ch", "sh")) else "s"
    return verb, verb + third, f"{stem}ed", f"{stem}ing"


def pattern_of(verbs: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds any form of the verbs as a whole word."""
    forms = sorted({form for verb in verbs for form in inflected(verb)})
    return re.compile(rf"\b(?:{'|'.join(forms)})\b")


_ACTION = pattern_of(VERBS)


def has_action(step: str) -> bool:
    """Return whether a step has an action verb in any form; case and accents ('sauté') do not matter."""
    if not step.isascii():
        step = "".join(c for c in unicodedata.normalize("NFD", step) if not unicodedata.combining(c))
    return _ACTION.search(step.lower()) is not None

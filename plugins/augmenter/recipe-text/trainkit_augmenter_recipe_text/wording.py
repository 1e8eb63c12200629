"""Three ways to word a prompt anew: another template, other verbs, a tip. Each is a function of text and choices."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from trainkit.templates import rendered, stripped

TEMPLATES = (
    "Create a recipe: {text}",
    "Generate a detailed recipe: {text}",
    "Make a dish with: {text}",
    "Recipe for: {text}",
    "How to prepare: {text}",
    "Cooking instructions: {text}",
    "{text}",
)
VERBS = {
    "mix": ("combine", "blend", "stir together"),
    "chop": ("dice", "cut", "mince"),
    "cook": ("prepare", "make"),
    "add": ("incorporate", "include"),
    "heat": ("warm",),
}
# Each has a verb of cooking, so that as a last step it is one, and neither number, unit nor ingredient.
TIPS = (
    "Tip: season to taste at the end.",
    "Tip: place everything within reach before the start.",
    "Tip: stir gently and often.",
    "Tip: serve while it is fresh.",
    "Tip: chop everything alike, so that all of it is done at once.",
    "Tip: heat the pan before anything goes in.",
)
MARK = "Tip:"
Choose = Callable[[int], int]
_STEPS = re.compile(r"^[\s#*_]*(?:instructions|directions|steps)[\s*_]*:?[\s*_]*$", re.IGNORECASE | re.MULTILINE)
_SENTENCES = re.compile(r"(\n+|(?<=[.!?;])\s+)")
# An order stands at the begin of a sentence or after 'and' or 'then', and goes on in small letters or with an amount:
# 'cake mix', 'over medium heat', 'pork chop' and 'Chop Suey' are things. After 'mix in' no other verb would do.
_NOUN_OR_PARTICLE = r"(?:is|was|of|off|from|in|into|up|time|times|level|source|setting|suey)\b"
_ORDER = re.compile(
    rf"(?:^[\s\-*\u2022]*|\b(?i:and|then)\s+)\b(?i:({'|'.join(VERBS)}))(?=\s+(?!{_NOUN_OR_PARTICLE})[a-z\d(~\u00bc-\u00be])"
)


def in_template(text: str, template: str, templates: Sequence[str] = TEMPLATES) -> str:
    """Return a text in a template, in place of the one that it is in."""
    return rendered(template, stripped(text, templates))


def like(word: str, model: str) -> str:
    """Return a word in the case of another one."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if model[0].isupper() else word


def paraphrased(text: str, choose: Choose) -> str:
    """Return a text with other verbs: whole words, in the same case, one a sentence at most.

    What stands before the header of the steps, if there is one, stays.

    Args:
        text: of any number of lines.
        choose: returns a number below its argument.
    """
    header = _STEPS.search(text)
    start = header.end() if header else 0
    pieces = _SENTENCES.split(text[start:])
    for place in range(0, len(pieces), 2):
        found = _ORDER.search(pieces[place])
        if found and choose(2):
            choices = VERBS[found[1].lower()]
            word = like(choices[choose(len(choices))], found[1])
            pieces[place] = pieces[place][: found.start(1)] + word + pieces[place][found.end(1) :]
    return text[:start] + "".join(pieces)


def with_tip(text: str, tip: str) -> str:
    """Return a text with a tip at its end, on a line of its own if it has several; one with a tip stays as it is."""
    if MARK in text:
        return text
    text = text.rstrip()
    return f"{text}\n{tip}" if "\n" in text else f"{text}{'' if text.endswith(('.', '!', '?')) else '.'} {tip}"

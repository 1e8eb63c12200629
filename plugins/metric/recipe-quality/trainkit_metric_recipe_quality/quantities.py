"""Quantities: whether a line of ingredients says how much of something."""

from __future__ import annotations

import re

UNITS = (
    *("cups?", "tbsps?", "tsps?", "tablespoons?", "teaspoons?", "oz", "ounces?", "lbs?", "pounds?"),
    *("kg", "g", "ml", "l", "cloves?", "cans?", "slices?", "pinch(?:es)?", "dash(?:es)?"),
)
_VULGAR = r"[\u00bc-\u00be\u2150-\u215e\u2189]"
_FRACTION = r"\d+\s*[/\u2044]\s*\d+"
_NUMBER = rf"(?:\d+[\s-]+{_FRACTION}|{_FRACTION}|\d+\s*{_VULGAR}|{_VULGAR}|\d*[.,]\d+|\d+)"
_RANGE = rf"{_NUMBER}(?:\s*(?:[-\u2013\u2014]|to)\s*{_NUMBER})?"
# Atomic and possessive: '2 cups' alone is an amount of nothing, neither number nor unit serves as the word to follow.
_UNIT = rf"(?:(?:{'|'.join(UNITS)})\b\.?)?+"
_ASIDE = r"(?:\([^()]*\)[\s-]*)*"
_WORD = r"[\w/\u2044-]*[^\W\d_]"
_QUANTITY = re.compile(rf"(?:~\s*)?(?>{_RANGE})[\s-]*+{_ASIDE}{_UNIT}[\s-]*{_ASIDE}{_WORD}", re.IGNORECASE)


def has_quantity(item: str) -> bool:
    """Return whether an item begins with a number, perhaps a unit, and then a word.

    Numbers are integers, decimals, a/b, mixed ones as '1 1/2', vulgar fractions, and ranges of them. Further [reading]:
    '~' may stand before a number and something in brackets before or after the unit, as '1 (28 ounce) can tomatoes',
    'to' makes a range, and a hyphen joins, as in '2-inch piece of ginger'.

    Args:
        item: a line without its bullet or list number.
    """
    return _QUANTITY.match(item) is not None

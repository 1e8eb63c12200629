"""Read JSON from files that anybody may have changed: bounded, without duplicate keys, without NaN."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

MAX_DEPTH = 100
MAX_DIGITS = 1000
SPECIAL_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

# Possessive, and closed by the end of the text too, so that no text makes it scan twice.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)


def loads(content: bytes | str, *, max_depth: int = MAX_DEPTH) -> Any:
    """Return the value of a JSON text.

    Args:
        content: UTF-8 bytes or text; its size is the caller's to limit.
        max_depth: how deep arrays and objects may nest.

    Raises:
        ValueError: the text is not strict JSON; the message says why, in one line.
    """
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    _check_depth(text, max_depth)
    return json.loads(
        text,
        object_pairs_hook=_unique,
        parse_constant=_refuse_constant,
        parse_int=_bounded_int,
        parse_float=_finite_float,
    )


def dumps(value: Any, *, indent: int | None = None) -> bytes:
    """Return a value as strict JSON: ASCII, keys in the order given, one newline at the end.

    Raises:
        ValueError: a number is not finite, or the value nests too deeply or refers to itself.
        TypeError: something in it is not JSON.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, allow_nan=False, indent=indent, separators=separators)
    _check_depth(text, MAX_DEPTH)
    return (text + "\n").encode("ascii")


def without_special_numbers(value: Any) -> Any:
    """Return a copy in which numbers that are not finite are the strings "nan", "inf" and "-inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(float(value))
    if isinstance(value, Mapping):
        return {key: without_special_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_special_numbers(item) for item in value]
    return value


def with_special_numbers(value: Any) -> Any:
    """Return a copy in which the strings "nan", "inf" and "-inf" are the numbers that they stand for."""
    if isinstance(value, str):
        return SPECIAL_NUMBERS.get(value, value)
    if isinstance(value, Mapping):
        return {key: with_special_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_special_numbers(item) for item in value]
    return value


def _check_depth(text: str, limit: int) -> None:
    """Refuse deep nesting before the parser recurses into it."""
    if text.count("[") + text.count("{") <= limit:
        return
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        first = text[token.start()]
        if first in "[{":
            depth += 1
            if depth > limit:
                raise ValueError(f"nested deeper than {limit} levels")
        elif first != '"':
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} appears twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _bounded_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]} is out of range")
    return value

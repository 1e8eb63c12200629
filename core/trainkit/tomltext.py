"""Settings as TOML text: values, and whole files that can be run again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .errors import printable
from .kinds import LIST_KINDS

if TYPE_CHECKING:
    from .config import Value


def show(value: Any) -> str:
    """Return a value as TOML writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(value) if math.isfinite(value) else {"inf": "inf", "-inf": "-inf"}.get(str(value), "nan")
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(show(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {show(item)}" for key, item in value.items()) + " }"
    return str(value)


def to_toml(values: Mapping[str, Value]) -> str:
    """Return settings as a TOML file that can be run again, each with its origin as a comment; None is a comment."""
    blocks: dict[str, list[str]] = {"": []}
    for key in sorted(values):
        kind, _, rest = key.partition(".")
        if kind in LIST_KINDS and not rest:
            names = values[key].value
            if not names:
                blocks[""].append(_assignment(kind, values[key]))
            for name in names:
                own = {k: v for k, v in values.items() if k.startswith(f"{kind}.{name}.")}
                lines = [_assignment("use", replace(values[key], value=name))]
                blocks[f"[[{kind}]] {name}"] = lines + [
                    _assignment(k.removeprefix(f"{kind}.{name}."), v) for k, v in own.items()
                ]
        elif kind not in LIST_KINDS:
            table, _, name = key.rpartition(".")
            blocks.setdefault(f"[{table}]" if table else "", []).append(_assignment(name, values[key]))
    top = blocks.pop("")
    tables = [
        "\n".join([header.partition("]] ")[0] + ("]]" if "]] " in header else ""), *lines])
        for header, lines in blocks.items()
    ]
    return "\n\n".join(["\n".join(top), *tables]).lstrip("\n") + "\n"


def _assignment(name: str, entry: Value) -> str:
    remark = entry.origin + (f": {entry.reason}" if entry.reason else "")
    text = f"{name} = {show(entry.value)}" if entry.value is not None else f"# {name} = none"
    return printable(f"{text}  # {remark}").replace("\n", " ")

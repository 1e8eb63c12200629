"""Where a user's settings come from: a TOML file, TRAINKIT_* variables, `--set`. Each becomes a layer."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import errors
from .config import Layer, Value, flat
from .kinds import LIST_KINDS

ENVIRONMENT_PREFIX = "TRAINKIT_"
ENVIRONMENT_RESERVED = frozenset({"TRAINKIT_PLUGINS", "TRAINKIT_HOME", "TRAINKIT_DEBUG"})
MAX_BYTES = 1_000_000


def read_file(path: Path) -> Layer:
    """Return the layer of a TOML file, each value with file and line."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise errors.UsageError(f"config file is larger than {MAX_BYTES} bytes", where=str(path))
        text = path.read_text(encoding="utf-8-sig")
        tables = tomllib.loads(text)
    except FileNotFoundError:
        raise errors.UsageError(f"no config file {path}", do="check the path, or run without a file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise errors.UsageError("config file cannot be read", where=str(path), why=str(error)) from None
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        why = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        raise errors.UsageError("config file is not valid TOML", where=str(path), why=why) from None
    lines = _lines(text)
    return {key: Value(value, _place(path, key, lines)) for key, value in flat(tables)}


def _lines(text: str) -> dict[str, int]:
    """Return the line of each key as it is written, table headers included."""
    table = ""
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            table = header[1].replace('"', "").replace(" ", "") + "."
        elif assignment := re.match(r'\s*([\w."\- ]+?)\s*=', line):
            found.setdefault(table + assignment[1].replace('"', "").replace(" ", ""), number)
    return found


def _place(path: Path, key: str, lines: Mapping[str, int]) -> str:
    short = key.removesuffix(".use")
    line = lines.get(key) or lines.get(short) or lines.get(short.partition(".")[0])
    return f"{path.name}:{line}" if line else path.name


def environment_layer(environment: Mapping[str, str] | None = None) -> Layer:
    """Return the layer of TRAINKIT_* variables: TRAINKIT_LOOP__BATCH_SIZE=8 sets loop.batch_size."""
    layer: Layer = {}
    for name, text in sorted((os.environ if environment is None else environment).items()):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in ENVIRONMENT_RESERVED:
            parts = name[len(ENVIRONMENT_PREFIX) :].lower().split("__")
            if parts[0] in LIST_KINDS and len(parts) == 3:
                parts[1] = parts[1].replace("_", "-")
            for key, value in flat({".".join(parts): parse_value(text)}):
                layer[key] = Value(value, f"${name}")
    return layer


def override_layer(assignments: Iterable[str]) -> Layer:
    """Return the layer of `--set key=value` arguments."""
    layer: Layer = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key.strip():
            raise errors.UsageError(
                f"--set {errors.printable(assignment)}: a key and a value are needed",
                do="write --set optimizer.lr=3e-4",
            )
        for dotted, value in flat({key.strip(): parse_value(text.strip())}):
            layer[dotted] = Value(value, f"--set {key.strip()}")
    return layer


def parse_value(text: str) -> Any:
    """Return the TOML value of a text; a text that is none is itself a string, and 'none' is None."""
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, ValueError, RecursionError):
        return text

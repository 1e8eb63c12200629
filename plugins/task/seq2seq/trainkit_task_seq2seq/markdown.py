"""A Markdown file as a record: its text, its path, and the simple keys of its YAML head."""

from __future__ import annotations

import re

FENCE = "---"
KEY = re.compile(r"([A-Za-z_][\w-]*):(?:\s+(.*))?")
ITEM = re.compile(r"\s*-\s+(.*)")


def record_of(text: str, path: str) -> dict[str, str | list[str]]:
    """Return the record of a file: `text`, all of it, `path`, and what its head says in plain words and lists.

    A file without a `title` in its head has that of its first heading. Nested values of the head are left out.
    """
    lines = text.splitlines()
    head = _head(lines)
    if "title" not in head:
        heading = next((line for line in lines if line.startswith("# ")), None)
        head |= {"title": heading[2:].strip()} if heading else {}
    return {**head, "text": text, "path": path}


def _head(lines: list[str]) -> dict[str, str | list[str]]:
    if not lines or lines[0].strip() != FENCE:
        return {}
    end = next((number for number, line in enumerate(lines[1:], 1) if line.strip() in (FENCE, "...")), 0)
    found: dict[str, str | list[str]] = {}
    listed = ""
    for line in lines[1:end]:
        if (match := KEY.fullmatch(line.rstrip())) is not None:
            listed, value = match[1], (match[2] or "").strip()
            if value.startswith("[") and value.endswith("]"):
                found[listed] = [_bare(item) for item in value[1:-1].split(",") if item.strip()]
            elif value:
                found[listed] = _bare(value)
        elif listed and (match := ITEM.fullmatch(line)) is not None:
            known = found.setdefault(listed, [])
            if isinstance(known, list):
                known.append(_bare(match[1]))
    return found


def _bare(value: str) -> str:
    value = value.strip()
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value

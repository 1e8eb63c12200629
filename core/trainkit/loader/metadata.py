"""Read the two metadata files of a distribution: small parsers, so that a listing need not import slow ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from trainkit import __version__
from trainkit.errors import nearest, printable
from trainkit.kinds import GROUP_PREFIX, KINDS

CORE = "trainkit-core"
NAME = re.compile(r"[a-z][a-z0-9-]*")
NAME_RULE = "a name is lower-case letters, digits and hyphens, beginning with a letter"

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?")
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?")
_CLAUSE = re.compile(r"\s*(===|~=|==|!=|>=|<=|>|<)\s*v?(\d+(?:\.\d+)*)(\.\*)?[^,]*")


def normalised(distribution: str) -> str:
    """Return a distribution's name as indexes compare it."""
    name = distribution.lower().replace("_", "-").replace(".", "-")
    while "--" in name:
        name = name.replace("--", "-")
    return name


def headers(metadata: bytes | None) -> dict[str, list[str]]:
    """Return the values of each header of METADATA, by its name in lower case; nothing of what is absent or no text.

    The description, which follows the first empty line and is far longer, is left alone.
    """
    try:
        text = (metadata or b"").replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode()
    except UnicodeDecodeError:
        return {}
    found: dict[str, list[str]] = {}
    for line in text.split("\n"):
        name, colon, value = line.partition(":")
        if colon and not line.startswith((" ", "\t")):
            found.setdefault(name.lower(), []).append(value.strip())
    return found


def entry_points(text: str) -> Iterator[tuple[str, str, str, tuple[str, str] | None]]:
    """Yield (kind, name, module, fault) of each entry point in trainkit's groups; a fault is (status, reason)."""
    group = ""
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith(("#", ";")):
            continue
        if line.startswith("["):
            group = line.strip("[] ")
            continue
        if not group.startswith(GROUP_PREFIX):
            continue
        kind = group.removeprefix(GROUP_PREFIX)
        name, equals, module = (part.strip() for part in line.partition("="))
        yield printable(kind), name, module, _fault(kind, name, module if equals else "")


def _fault(kind: str, name: str, module: str) -> tuple[str, str] | None:
    if kind not in KINDS:
        close = nearest(kind, KINDS)
        return "invalid name", f"there is no kind '{printable(kind)}'" + (f"; did you mean '{close}'?" if close else "")
    if not NAME.fullmatch(name):
        return "invalid name", NAME_RULE
    if not _MODULE.fullmatch(module):
        return "unreadable", "its line in entry_points.txt does not name a module"
    return None


def core_clash(requirements: Iterable[str]) -> str:
    """Return why a distribution with these Requires-Dist cannot work with this core, or nothing."""
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is None or normalised(match[1]) != CORE or "extra" in (match[3] or ""):
            continue
        if not satisfies(__version__, match[2]):
            return f"it needs {CORE}{match[2].strip()}, and {__version__} is installed"
    return ""


def satisfies(version: str, specifier: str) -> bool:
    """Return whether a version lies in a range such as '>=0.1,<1'. Dotted numbers count; what follows them does not."""
    have = _numbers(version)
    return all(_holds(have, *match.groups()) for match in _CLAUSE.finditer(specifier))


def _holds(have: tuple[int, ...], operator: str, bound: str, star: str | None) -> bool:
    want = _numbers(bound)
    width = max(len(have), len(want))
    left, right = have + (0,) * (width - len(have)), want + (0,) * (width - len(want))
    if operator in ("==", "===", "!="):
        is_same = left[: len(want)] == want if star else left == right
        return is_same != (operator == "!=")
    if operator == "~=":
        return left >= right and left[: len(want) - 1] == want[:-1]
    return {">=": left >= right, "<=": left <= right, ">": left > right, "<": left < right}[operator]


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"v?(\d+(?:\.\d+)*)", version.strip())
    return tuple(int(part) for part in match[1].split(".")) if match else ()

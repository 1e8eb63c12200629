"""The catalogue of first-party components: what could be installed. `trainkit plugins registry write` makes it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .errors import TrainkitError, UsageError
from .kinds import GROUP_PREFIX, KINDS

if TYPE_CHECKING:
    from pathlib import Path

FILE = "registry.toml"
HEAD = "# The catalogue of first-party components. Generated: trainkit plugins registry write"
TABLE = "[[component]]"


class Offer(NamedTuple):
    """Describe a component that can be installed.

    Args:
        kind: its kind.
        name: its name.
        distribution: what to install.
        summary: what it is, in a line.
        api: the version of the hooks it is written for.
        status: beta, stable or deprecated.
    """

    kind: str
    name: str
    distribution: str
    summary: str
    api: int
    status: str


def read_catalogue(path: str | Path | None = None) -> list[Offer]:
    """Return the catalogue; an empty one where the file is absent or of another form, for it only gives hints.

    Args:
        path: the file; by default the one inside the package, and in a checkout the one at the root.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    inside, root = os.path.join(here, FILE), os.path.join(here, os.pardir, os.pardir, FILE)
    try:
        with open(path or (inside if os.path.exists(inside) else root), encoding="utf-8") as file:
            return parse(file.read())
    except (OSError, ValueError, TypeError, LookupError):
        return []


def available(kind: str, offers: Iterable[Offer] | None = None) -> list[tuple[str, str]]:
    """Return the (name, distribution) pairs of a kind in the catalogue."""
    return [(o.name, o.distribution) for o in (read_catalogue() if offers is None else offers) if o.kind == kind]


def parse(text: str) -> list[Offer]:
    """Return the offers of a text in the form that `render` writes, which is TOML at its simplest.

    A listing reads the catalogue, and importing tomllib would take as long as everything else in it.
    """
    tables: list[dict[str, str]] = []
    for line in text.split("\n"):
        key, equals, value = line.partition(" = ")
        if line == TABLE:
            tables.append({})
        elif equals and not line.startswith("#"):
            tables[-1][key] = _unquoted(value)
    return [Offer(**{**values, "api": int(values["api"])}) for values in tables]  # type: ignore[arg-type]


def render(offers: Iterable[Offer]) -> str:
    """Return the text of the catalogue."""
    blocks = ["\n".join([TABLE, *(f"{key} = {_quoted(value)}" for key, value in o._asdict().items())]) for o in offers]
    return "\n\n".join([HEAD, *blocks]) + "\n"


def _quoted(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    if not value.isprintable():
        raise UsageError(f"the catalogue holds no control characters: {value!r}")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquoted(value: str) -> str:
    return value[1:-1].replace('\\"', '"').replace("\\\\", "\\") if value.startswith('"') else value


def collect(root: Path) -> list[Offer]:
    """Return the offers of all folders plugins/KIND/NAME below a root, sorted by kind and name.

    Raises:
        UsageError: a folder whose pyproject.toml is absent or does not offer exactly the component the folder names.
    """
    folders = [folder for folder in (root / "plugins").glob("*/*") if folder.is_dir() and folder.name[0] not in "._"]
    if not folders:
        raise UsageError("no plugin folders", where=str(root / "plugins"), do="name the root of the repository")
    return sorted((_offer(folder) for folder in folders), key=lambda o: (KINDS.index(o.kind), o.name))


def _offer(folder: Path) -> Offer:
    import tomllib

    from .hooks import API_VERSION

    kind, name, file = folder.parent.name, folder.name, folder / "pyproject.toml"
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
        project = tables["project"]
        points = project.get("entry-points", {})
        if kind not in KINDS or name not in points.get(GROUP_PREFIX + kind, {}):
            raise UsageError(f"it does not offer the {kind} '{name}', which its folder names", where=str(file))
        status = tables.get("tool", {}).get("trainkit", {}).get("status")
        first = "beta" if str(project["version"]).startswith("0.") else "stable"
        return Offer(kind, name, project["name"], project["description"], API_VERSION, status or first)
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise UsageError("a plugin folder has no usable pyproject.toml", where=str(file), why=repr(error)) from None


def write(root: Path) -> Path:
    """Write the catalogue of a repository and return its path."""
    file = root / FILE
    file.write_text(render(collect(root)), encoding="utf-8")
    return file


def check(root: Path) -> None:
    """Raise UsageError if the catalogue of a repository is not what `write` would write."""
    file = root / FILE
    current = file.read_text(encoding="utf-8") if file.exists() else ""
    if current != render(collect(root)):
        raise UsageError(
            "the catalogue has drifted from the plugin folders", where=str(file), do="trainkit plugins registry write"
        )


def main(arguments: Sequence[str]) -> int:
    """Run `write ROOT` or `check ROOT`; return the exit code."""
    from pathlib import Path

    if len(arguments) != 2 or arguments[0] not in ("write", "check"):
        print("usage: python -m trainkit.catalogue write|check ROOT", file=sys.stderr)
        return 2
    try:
        {"write": write, "check": check}[arguments[0]](Path(arguments[1]))
    except TrainkitError as error:
        print(f"error: {error.render()}", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

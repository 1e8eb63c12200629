"""Which components are installed: read from package metadata alone, importing no plugin and nothing that is slow.

An own scan of the folders on `sys.path` takes a tenth of the time of `importlib.metadata`, which serves where the scan
is blind: zip files on the path, and finders that bring their own distributions.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .errors import printable
from .kinds import GROUP_PREFIX, KINDS
from .loader.metadata import core_clash, entry_points, headers, normalised

UNKNOWN = "?"

_MARK = GROUP_PREFIX.encode()


class Entry(NamedTuple):
    """Describe one component that an installed distribution offers.

    Args:
        kind: the kind its entry-point group names.
        name: the component's name.
        module: the plugin: a module, or `module:object`.
        distribution: name of the distribution.
        version: version of the distribution.
        summary: what the distribution says about itself, in a line.
        status: ok, conflict, incompatible, unreadable, missing, invalid name, blocked or broken.
        reason: why the status is not ok.
    """

    kind: str
    name: str
    module: str
    distribution: str
    version: str
    summary: str = ""
    status: str = "ok"
    reason: str = ""

    @property
    def provider(self) -> str:
        """Return distribution and version, as messages name them."""
        return f"{self.distribution} {self.version}".strip()


class _Found(NamedTuple):
    """Hold the raw metadata of one distribution; None stands for a file that is absent or cannot be read."""

    folder: str
    entry_points: bytes | None
    metadata: bytes | None


def discover(path: Sequence[str] | None = None) -> list[Entry]:
    """Return every component that is installed, sorted by kind, name and distribution.

    Args:
        path: folders to look into; `sys.path` if not given. Of two distributions with one name the first is taken.

    Nothing about a distribution raises: what is wrong with it stands in `status` and `reason`.
    """
    folders = list(dict.fromkeys(sys.path if path is None else path))
    if (path is None and _has_foreign_finder()) or any(os.path.isfile(folder) for folder in folders):
        found, importable = _found_by_importlib(folders), None
    else:
        found, importable = _scan(folders)
    entries = (entry for raw in found for entry in _entries(raw, importable))
    return mark_conflicts(sorted(entries, key=lambda entry: (_order(entry.kind), entry.name, entry.distribution)))


def mark_conflicts(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries, with status conflict where several usable ones share kind and name."""
    entries = list(entries)
    providers: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        if entry.status in ("ok", "conflict"):
            providers.setdefault((entry.kind, entry.name), []).append(entry.provider)
    return [_marked(entry, providers.get((entry.kind, entry.name), [])) for entry in entries]


def _marked(entry: Entry, providers: list[str]) -> Entry:
    if entry.status not in ("ok", "conflict"):
        return entry
    if len(providers) == 1:
        return entry._replace(status="ok", reason="")
    return entry._replace(status="conflict", reason="also in " + ", ".join(p for p in providers if p != entry.provider))


def _order(kind: str) -> tuple[int, str]:
    return (KINDS.index(kind) if kind in KINDS else len(KINDS)), kind


def _has_foreign_finder() -> bool:
    # The standard path finder is a class of the frozen importlib; anything else may know distributions no folder shows.
    return any(hasattr(f, "find_distributions") and getattr(f, "__name__", "") != "PathFinder" for f in sys.meta_path)


def _scan(folders: Iterable[str]) -> tuple[list[_Found], set[str]]:
    """Return the distributions in these folders that mention trainkit, and every name that can be imported there."""
    found, seen, importable = [], set(), set(sys.builtin_module_names)
    for folder in folders:
        try:
            names = sorted(os.listdir(folder or "."))
        except OSError:
            continue
        for name in names:
            stem, _, ending = name.rpartition(".")
            if ending not in ("dist-info", "egg-info"):
                importable.add(name.partition(".")[0])
                continue
            distribution = normalised(_folder_identity(name)[0])
            if distribution in seen:
                continue
            seen.add(distribution)
            place = os.path.join(folder, name)
            points = _read(os.path.join(place, "entry_points.txt"))
            if points is not None and _MARK in points:
                metadata = _read(os.path.join(place, "METADATA" if ending == "dist-info" else "PKG-INFO"))
                found.append(_Found(name, points, metadata))
            elif points is None and stem.startswith("trainkit_") and "entry_points.txt" in _listing(place):
                found.append(_Found(name, None, None))
    return found, importable


def _listing(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _read(path: str) -> bytes | None:
    try:
        # Without buffering a small file costs half.
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return None


def _found_by_importlib(folders: list[str]) -> list[_Found]:
    """Return the distributions that mention trainkit as importlib.metadata finds them."""
    from importlib.metadata import distributions

    found, seen = [], set()
    for distribution in distributions(path=folders):
        try:
            points = (distribution.read_text("entry_points.txt") or "").encode()
            if _MARK not in points:
                continue
            metadata = (distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or "").encode()
            known = headers(metadata)
            name, version = (known.get(key, [""])[0] for key in ("name", "version"))
        except Exception:  # noqa: S112 - a foreign finder may raise anything; what it cannot tell is not there
            continue
        if normalised(name) not in seen:
            seen.add(normalised(name))
            found.append(_Found(f"{name}-{version}.dist-info", points, metadata))
    return found


def _folder_identity(folder: str) -> tuple[str, str]:
    """Return name and version as the folder's name tells them."""
    stem = folder.rpartition(".")[0]
    if folder.endswith(".egg-info"):
        name, _, rest = stem.partition("-")
        return name, rest.partition("-")[0]
    name, _, version = stem.rpartition("-")
    return (name, version) if name else (stem, "")


def _entries(raw: _Found, importable: set[str] | None) -> Iterator[Entry]:
    name, version = _folder_identity(raw.folder)
    name = normalised(name)
    if raw.entry_points is None:
        fault = "entry_points.txt cannot be read"
        yield Entry(UNKNOWN, UNKNOWN, "", printable(name), printable(version), "", "unreadable", fault)
        return
    known = headers(raw.metadata)
    status, reason = "ok", ""
    if "name" not in known or "version" not in known:
        status, reason = "unreadable", "METADATA is missing or damaged"
    else:
        name, version = known["name"][0], known["version"][0]
        if clash := core_clash(known.get("requires-dist", ())):
            status, reason = "incompatible", clash
    summary = known.get("summary", [""])[0]
    for kind, component, module, wrong in entry_points(raw.entry_points.decode("utf-8", "replace")):
        identity = (printable(text) for text in (kind, component, module, name, version, summary))
        entry = Entry(*identity)._replace(status=status, reason=reason)
        if wrong is not None:
            entry = entry._replace(status=wrong[0], reason=wrong[1])
        elif status == "ok" and importable is not None and not _is_importable(module, importable):
            entry = entry._replace(status="missing", reason=f"its module {module} is not on the path")
        yield entry


def _is_importable(module: str, importable: set[str]) -> bool:
    top = module.partition(":")[0].partition(".")[0]
    if top in importable:
        return True
    # Editable installations may serve modules through a finder of their own: ask all finders, which imports nothing.
    from importlib.util import find_spec

    try:
        return find_spec(top) is not None
    except Exception:  # a foreign finder may raise anything
        return False

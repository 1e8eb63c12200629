"""Where names become components: what is installed, what is blocked, and loading only what is named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from . import errors
from .catalogue import Offer, available, read_catalogue
from .discovery import Entry, discover, mark_conflicts
from .kinds import KINDS
from .loader import health
from .loader.metadata import NAME, normalised

if TYPE_CHECKING:
    from .component import Component

ALLOWED = "TRAINKIT_PLUGINS"


class Registry:
    """Know what is installed and load components by name.

    Args:
        entries: what is installed; discovered if not given.
        blocked: names that shall not be loaded: a component (lion), KIND/NAME or a distribution.
        catalogue: what could be installed, for hints; the one that came with trainkit if not given.
        allowed: the only names that may be loaded, in the same forms; $TRAINKIT_PLUGINS, separated by commas, if not
            given. An empty one allows none.

    Raises:
        UsageError: `blocked` or `allowed` holds a name that nothing installed has.
    """

    def __init__(
        self,
        entries: Iterable[Entry] | None = None,
        blocked: Iterable[str] = (),
        catalogue: Sequence[Offer] | None = None,
        allowed: Iterable[str] | None = None,
    ) -> None:
        found = list(discover() if entries is None else entries)
        place = "the allow list"
        if allowed is None and (listed := os.environ.get(ALLOWED)) is not None:
            allowed, place = [name.strip() for name in listed.split(",") if name.strip()], f"${ALLOWED}"
        found = _blocked(found, list(blocked), is_allowed=False, place="block list")
        if allowed is not None:
            found = _blocked(found, list(allowed), is_allowed=True, place=place)
        # A blocked distribution no longer contends for a name, so that blocking settles a conflict.
        self._entries = mark_conflicts(found)
        self._catalogue = catalogue
        self._loaded: dict[tuple[str, str], Component] = {}

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Return what is installed, usable or not, of one kind or of all."""
        return [entry for entry in self._entries if kind in (None, entry.kind)]

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind that can be loaded by name alone."""
        return [entry.name for entry in self._entries if entry.kind == kind and entry.status == "ok"]

    def offers(self, kind: str | None = None) -> list[Offer]:
        """Return the catalogue's components, of one kind or of all, that are not installed."""
        if self._catalogue is None:
            self._catalogue = read_catalogue()
        installed = {(entry.kind, entry.name, normalised(entry.distribution)) for entry in self._entries}
        offers = (offer for offer in self._catalogue if kind in (None, offer.kind))
        return [offer for offer in offers if (offer.kind, offer.name, normalised(offer.distribution)) not in installed]

    def load(self, kind: str, reference: Any) -> Component:
        """Return a component; only the plugin that offers it is imported.

        Args:
            kind: kind of the component.
            reference: a name, NAME@DISTRIBUTION, './file.py:OBJECT', or a live class, factory or object.

        Raises:
            PluginError: nothing, or more than one distribution, has the name, or its plugin fails.
            UsageError: the name is none, or the file or the object in it does not exist.
        """
        from .component import component_from_file, component_from_object, is_file_reference

        if kind not in KINDS:
            raise errors.unknown_kind(kind, KINDS)
        if not isinstance(reference, str):
            return component_from_object(kind, reference)
        if (kind, reference) not in self._loaded:
            make = component_from_file if is_file_reference(reference) else self._load
            self._loaded[kind, reference] = make(kind, reference)
        return self._loaded[kind, reference]

    def find(self, kind: str, reference: str) -> Entry:
        """Return the usable entry that a name or NAME@DISTRIBUTION means, importing nothing; raise as `load` does."""
        name, at, distribution = reference.partition("@")
        if not NAME.fullmatch(name):
            raise errors.invalid_name(kind, reference)
        named = [entry for entry in self.entries(kind) if entry.name == name]
        if not named:
            known = [entry.name for entry in self.entries(kind) if NAME.fullmatch(entry.name)]
            raise errors.unknown_component(kind, name, known, available(kind, self.offers()))
        if at:
            providers = [entry.distribution for entry in named]
            named = [entry for entry in named if normalised(entry.distribution) == normalised(distribution)]
            if not named:
                raise errors.unknown_distribution(kind, name, distribution, providers)
        usable = [entry for entry in named if entry.status in ("ok", "conflict")]
        if len(usable) > 1:
            raise errors.conflicting_components(kind, name, [entry.provider for entry in usable])
        if not usable:
            raise _refusal(named[0])
        return usable[0]

    def _load(self, kind: str, reference: str) -> Component:
        from .component import Component
        from .loader.loading import LoadError, load_target

        entry = self.find(kind, reference)
        try:
            target = load_target(kind, entry.module)
        except LoadError as error:
            health.remember(entry, f"{error.phase}: {error.cause}")
            raise errors.broken_plugin(
                kind, entry.name, entry.distribution, error.phase, error.cause, entry.version
            ) from error.__cause__
        health.forget(entry)
        return Component(kind, entry.name, target, entry.distribution, entry.version)


def _refusal(entry: Entry) -> errors.PluginError:
    remedies = {
        "blocked": "change that list, or choose another",
        "incompatible": f"pip install --upgrade {entry.distribution} trainkit-core",
        "invalid name": f"pip uninstall {entry.distribution}",
    }
    do = remedies.get(entry.status, f"pip install --force-reinstall {entry.distribution}")
    return errors.refused_plugin(entry.kind, entry.name, entry.provider, entry.reason, do)


def _blocked(entries: list[Entry], names: list[str], *, is_allowed: bool, place: str) -> list[Entry]:
    """Return the entries with those blocked that a list names, or, of an allow list, those that it does not name."""
    for name in names:
        if not any(_is_named(entry, name) for entry in entries):
            raise errors.unknown_plugin(name, place, {form for entry in entries for form in _forms(entry)})
    reason = f"{place} does not allow it" if is_allowed else f"it is in the {place}"
    return [
        entry._replace(status="blocked", reason=reason)
        if any(_is_named(entry, name) for name in names) != is_allowed and entry.status in ("ok", "conflict")
        else entry
        for entry in entries
    ]


def _forms(entry: Entry) -> tuple[str, str, str]:
    return entry.name, f"{entry.kind}/{entry.name}", normalised(entry.distribution)


def _is_named(entry: Entry, name: str) -> bool:
    return name in _forms(entry) or normalised(name) == normalised(entry.distribution)

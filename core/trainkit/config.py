"""What the user asked for: settings by dotted key, in layers, each value with its origin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import errors
from .kinds import KINDS, LIST_KINDS, ONE_KINDS
from .tomltext import show

REMOVAL = "no:"
NOTHING = "none"
USE = ".use"
MAX_DEPTH = 32

FALLBACK_STRATEGY = "baseline"
NULL_SCHEDULER = "constant"
DEFAULTS: dict[str, Any] = {
    "task.use": "layout",
    "strategy.use": "auto",
    "loss.use": "cross-entropy",
    "optimizer.use": "adamw",
    "scheduler.use": "cosine",
    "adapter.use": "full",
    "augmenter": [],
    "metric": [],
    "callback": ["tensorboard"],
}
# What a component is held against where one asks what it brings; of a list, that is its absence.
NULLS: dict[str, str] = {"loss": "cross-entropy", "optimizer": "adamw", "scheduler": NULL_SCHEDULER, "adapter": "full"}


@dataclass(frozen=True)
class Value:
    """Hold a value, the place it comes from, and the reason where the place gives one."""

    value: Any
    origin: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{show(self.value)} from {self.origin}" + (f": {self.reason}" if self.reason else "")


Layer = dict[str, Value]


@dataclass
class Config:
    """Hold the merged layers: for each dotted key every value that was proposed, the last one in force."""

    history: dict[str, list[Value]] = field(default_factory=dict)
    removals: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, layer: Layer) -> None:
        """Put a layer on top.

        A layer that names another component of a kind drops the options that lower layers gave to the one before:
        a learning rate for one optimizer says nothing about another. The same holds for a part inside a part, as
        `loss.main`. Callbacks add up; 'no:NAME' takes one away, 'none' all of them.
        """
        # Names first, the outer before the inner: the options that come with a name in one layer are that name's own.
        for key in sorted(layer, key=lambda k: (not (k.endswith(USE) or k in LIST_KINDS), k.count("."))):
            new = layer[key]
            key = self.in_full(key)
            kind, _, option = key.partition(".")
            if key.endswith(USE) and kind in KINDS:
                self.rename(key.removesuffix(USE), key)
            if kind in KINDS and option and key in self.history and self[key] != new.value:
                self._drop_options(key, layer)
            if kind in LIST_KINDS and not option:
                new = Value(self._combined(kind, new), new.origin, new.reason)
                self._drop_unlisted(kind, new.value)
            self._put(key, new)

    def _put(self, key: str, new: Value) -> None:
        values = self.history.setdefault(key, [])
        if not values or values[-1] != new:
            values.append(new)

    def in_full(self, key: str) -> str:
        """Return the key that stands here for what another form of it means.

        A listed component may be named without its file or distribution, and an inner one, as `loss.main.use`, by the
        name of its option alone.
        """
        kind, _, rest = key.partition(".")
        if kind in LIST_KINDS and rest and _owner(rest, names := self.listed(kind)) not in names:
            for full in map(str, names):
                if rest.startswith(short := f"{short_name(full)}."):
                    key = f"{kind}.{full}.{rest.removeprefix(short)}"
                    break
        return key + USE if kind in KINDS and rest and key + USE in self.history else key

    def rename(self, key: str, new: str) -> None:
        """Let what was proposed under one key stand under another, unless something stands there."""
        if key in self.history and new not in self.history and "." in key:
            self.history[new] = self.history.pop(key)

    def _drop_options(self, key: str, layer: Layer) -> None:
        """Drop what lower layers gave to the component that a key named until now."""
        inside = key.removesuffix("use") if key.endswith(USE) else f"{key}."
        for old in [k for k in self.history if k.startswith(inside) and k != key and k not in layer]:
            del self.history[old]

    def _drop_unlisted(self, kind: str, names: Sequence[Any]) -> None:
        """Drop the options that lower layers gave to what is no longer in the list."""
        for key in [k for k in self.history if k.startswith(f"{kind}.")]:
            if _owner(key.removeprefix(f"{kind}."), names) not in names:
                del self.history[key]

    def _combined(self, kind: str, new: Value) -> list[Any]:
        below, names = self.listed(kind), [str(name) for name in new.value]
        if NOTHING in names:
            below, names = [], [name for name in names if name != NOTHING]
        removed = [name[len(REMOVAL) :] for name in names if name.startswith(REMOVAL)]
        added = [name for name in names if not name.startswith(REMOVAL)]
        self.removals += [(kind, name, new.origin) for name in removed]
        keeps = kind == "callback" or (removed and not added)
        merged = [*below, *added] if keeps else added
        return [name for name in dict.fromkeys(merged) if name not in removed]

    def choose(self, kind: str, choice: Value) -> None:
        """Put in force what a choice that was left open came to; the options given for it stay."""
        self._put(f"{kind}.use", choice)

    def __getitem__(self, key: str) -> Any:
        return self.history[key][-1].value

    def __contains__(self, key: object) -> bool:
        return key in self.history

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value in force, or the default."""
        return self[key] if key in self.history else default

    def origin(self, key: str) -> str:
        """Return where the value in force comes from."""
        return self.history[key][-1].origin if key in self.history else "default"

    def __iter__(self) -> Iterator[str]:
        """Yield all dotted keys."""
        return iter(sorted(self.history))

    def options(self, kind: str, name: str | None = None) -> dict[str, Any]:
        """Return the options of a component: of the kind's only one, or of a named one of a list."""
        prefix = f"{kind}.{name}." if name else f"{kind}."
        found = {k[len(prefix) :]: self[k] for k in self.history if k.startswith(prefix)}
        return {option: value for option, value in found.items() if option != "use"}

    def listed(self, kind: str) -> list[Any]:
        """Return the names of a list kind in force."""
        return list(self.get(kind, []))

    def settings(self) -> dict[str, Any]:
        """Return what belongs to no component, nested by its dots."""
        nested: dict[str, Any] = {}
        for key in self.history:
            first, _, rest = key.partition(".")
            if first in KINDS or first == "stages":
                continue
            if rest:
                nested.setdefault(first, {})[rest] = self[key]
            else:
                nested[first] = self[key]
        return nested

    def check_lists(self) -> None:
        """Refuse options of a listed component that is not in the list, and the removal of one that never was."""
        for kind, name, origin in self.removals:
            proposed = {item for value in self.history[kind] for item in value.value}
            if name not in proposed:
                raise errors.UsageError(
                    f"{kind}: there is no '{name}' to take away",
                    where=origin,
                    why=f"in force: {', '.join(self.listed(kind)) or 'none'}",
                )
        for key in self.history:
            kind, _, rest = key.partition(".")
            name = _owner(rest, self.listed(kind)) if kind in LIST_KINDS else ""
            if kind in LIST_KINDS and rest and name not in self.listed(kind):
                raise errors.UsageError(
                    f"{key}: this run has no {kind} '{name or rest}'",
                    where=self.origin(key),
                    why=f"in force: {', '.join(map(str, self.listed(kind))) or 'none'}",
                    do=f"add --{kind} {name}" if name else f"write --set {kind}.NAME.{rest}=...",
                )

    def document(self) -> dict[str, Any]:
        """Return the whole history as JSON."""
        return {
            key: [{"value": v.value, "origin": v.origin, "reason": v.reason} for v in values]
            for key, values in sorted(self.history.items())
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Config:
        """Return the config whose `document` this is."""
        return cls({key: [Value(**value) for value in values] for key, values in document.items()})


def merged(layers: Sequence[Layer]) -> Config:
    """Return the config of layers, lowest first."""
    config = Config()
    for layer in layers:
        config.add(layer)
    return config


def _owner(rest: str, names: Iterable[Any]) -> Any:
    """Return which of the listed names an option's key begins with; what stands before its last dot if none does."""
    owners = [name for name in names if rest.startswith(f"{name}.")]
    return max(owners, key=lambda name: len(str(name)), default=rest.rpartition(".")[0])


def short_name(reference: str) -> str:
    """Return a component's name without its distribution, or that of an object without its file."""
    return reference.rpartition(":")[2].partition("@")[0]


def short_names(references: Iterable[str]) -> dict[str, str]:
    """Return references with their short names, those that two would share left in full."""
    short = {reference: short_name(reference) for reference in references}
    return {
        reference: name if list(short.values()).count(name) == 1 else reference for reference, name in short.items()
    }


def default_layer() -> Layer:
    """Return the lowest layer."""
    return {key: Value(value, "default") for key, value in DEFAULTS.items()}


def layer_of(settings: Mapping[str, Any], origin: str) -> Layer:
    """Return a layer of settings that may nest or have dots in their keys, all from one origin."""
    return {key: Value(value, origin) for key, value in flat(settings)}


def flat(settings: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) pairs: a component's name under `KIND.use`, a listed one's options under its name."""
    if depth > MAX_DEPTH:
        raise errors.UsageError(f"settings nest deeper than {MAX_DEPTH} levels", where=prefix)
    for key, value in settings.items():
        dotted = f"{prefix}{key}"
        if dotted in ONE_KINDS and not isinstance(value, Mapping):
            yield f"{dotted}.use", value
        elif dotted in LIST_KINDS and not isinstance(value, Mapping):
            yield from _listed(dotted, value)
        elif isinstance(value, Mapping):
            if dotted in LIST_KINDS and "use" in value:
                yield from _listed(dotted, [value])
            else:
                yield from flat(value, f"{dotted}.", depth + 1)
        else:
            yield dotted, value


def _listed(kind: str, value: Any) -> Iterator[tuple[str, Any]]:
    names: list[Any] = []
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, Mapping):
            name = item.get("use")
            if not isinstance(name, str):
                raise errors.UsageError(f"a table of {kind} needs a name", do=f'write use = "NAME" in [[{kind}]]')
            names.append(name)
            yield from flat({option: v for option, v in item.items() if option != "use"}, f"{kind}.{name}.")
        elif item is not None:
            names.append(item)
    yield kind, names

"""From names in a config to loaded parts with checked options, parts inside parts included. Nothing is built yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .component import Component
from .config import USE, Config, flat
from .conformity import check_conformity
from .errors import TrainkitError, UsageError
from .loader.options import REQUIRED, InnerOption, OptionRow
from .registry import Registry

MAX_DEPTH = 8

Origin = Callable[[str], str]


@dataclass(frozen=True)
class Part:
    """Hold a loaded component with its checked options; an option that takes a component holds the part of that one."""

    component: Component
    options: dict[str, Any]

    def build(self, made_inside: dict[str, Any] | None = None, **runtime: Any) -> Any:
        """Return the live object, the parts inside it built first.

        Args:
            made_inside: takes the live parts inside by key, as 'loss.main', the outer before the inner.
            runtime: what the core passes in for this kind; parts of the same kind inside it are given it too.

        Raises:
            PluginError: it is not what its kind needs, or raised when it was built.
        """
        options = dict(self.options)
        for name, part in self.held():
            below: dict[str, Any] = {}
            same_kind = part.component.kind == self.component.kind
            options[name] = part.build(below, **(runtime if same_kind else {}))
            if made_inside is not None:
                made_inside |= {part.component.place: options[name], **below}
        made = self.component.build(options, **runtime)
        check_conformity(self.component.kind, self.component.name, made)
        return made

    def held(self) -> list[tuple[str, Part]]:
        """Return the parts that options of this one hold, each with its option."""
        return [(name, value) for name, value in self.options.items() if isinstance(value, Part)]

    def inner(self) -> list[Part]:
        """Return all parts inside this one, the outer before the inner."""
        return [found for _, part in self.held() for found in (part, *part.inner())]


@dataclass(frozen=True)
class Loader:
    """Load parts.

    Args:
        registry: where names become components.
        live: objects that stand for names, by the name they have in a config.
    """

    registry: Registry
    live: Mapping[str, Any]

    def part(self, kind: str, config: Config) -> Part:
        """Load the only component of a kind and check its options."""
        return self._of_config(self.load(kind, config[f"{kind}{USE}"]), kind, config, config.options(kind))

    def listed(self, kind: str, config: Config) -> dict[str, Part]:
        """Load the components of a list kind and check their options."""
        return {
            name: self._of_config(self.load(kind, name), f"{kind}.{name}", config, config.options(kind, name))
            for name in config.listed(kind)
        }

    def default(self, kind: str, name: str) -> Part:
        """Load a component with its defaults."""
        return self.checked(self.load(kind, name), {})

    def load(self, kind: str, name: Any) -> Component:
        """Load a component by name, or the live object that has this name."""
        if not isinstance(name, str):
            raise UsageError(f"{kind}: a name is needed (got {name!r})", do=f"trainkit plugins --kind {kind}")
        return self.registry.load(kind, self.live.get(name, name))

    def _of_config(self, component: Component, key: str, config: Config, options: Mapping[str, Any]) -> Part:
        part = self.checked(replace(component, at=key), options, lambda option: _origin(config, f"{key}.{option}"))
        for inner in part.inner():
            # Of the two keys that say the same, the record holds the one that leaves room for options beside it.
            config.rename(inner.component.place, inner.component.place + USE)
        return part

    def checked(
        self,
        component: Component,
        given: Mapping[str, Any],
        origin: Origin = lambda _: "",
        depth: int = 0,
        others: Sequence[str] = (),
    ) -> Part:
        """Return the part of a component with checked options, those of the parts inside it included.

        Args:
            component: the component.
            given: options by name; those of a part inside as 'OPTION.NAME', or beside if they stand there.
            origin: from an option to the place its value comes from.
            depth: how many parts are around it.
            others: names of options that stand beside these.
        """
        if depth > MAX_DEPTH:
            raise UsageError(f"{component.place}: parts nest deeper than {MAX_DEPTH} levels")
        inner = component.inner
        given = _with_base(given, component)
        own = {option: value for option, value in given.items() if option.partition(".")[0] not in inner}
        specs = {option: _spec(given, option) for option in inner}
        named = {option: spec["use"] for option, spec in specs.items() if "use" in spec}
        options = component.validate(own | named, origin, others)
        for option, takes in inner.items():
            options[option] = self._inner(takes, component, option, options[option], specs[option], origin, depth)
        return Part(component, options)

    def _inner(
        self,
        takes: InnerOption,
        outer: Component,
        option: str,
        named: Any,
        given: Mapping[str, Any],
        origin: Origin,
        depth: int,
    ) -> Part | None:
        """Return the part that an option holds.

        Args:
            takes: what the option takes.
            outer: the component whose option it is.
            option: its name.
            named: the name, table or object in force, given or by default.
            given: what the user said, as {"use": name, option: value}.
            origin: from an option of the outer component to the place its value comes from.
            depth: how many parts are around it.
        """
        key = f"{outer.place}.{option}"
        inside = _inside(origin, option)
        table = _flat(named) if isinstance(named, Mapping) else {"use": named}
        table.update(given)
        options = {name: value for name, value in table.items() if name != "use"}
        name = table.get("use")
        if name is None and takes.may_be_none and not options:
            return None
        if name is None:
            raise UsageError(
                f"{key}: the name of a {takes.kind} is needed", where=inside("use"), do=f"add --set {key}{USE}=NAME"
            )
        try:
            component = self.load(takes.kind, name) if isinstance(name, str) else self.registry.load(takes.kind, name)
        except TrainkitError as error:
            where = f"{key}{USE}, {inside('use')}" + (f"; {error.where}" if error.where else "")
            raise type(error)(error.what, where=where, why=error.why, do=error.do) from error
        if takes.beside:
            component = replace(component, at=key, beside=outer.beside or outer.place)
            return self.checked(component, options, origin, depth + 1, outer.names)
        return self.checked(replace(component, at=key), options, inside, depth + 1)


def described(component: Component, registry: Registry) -> list[OptionRow]:
    """Return a row for each option; those of a base that stand beside follow, with the defaults given to them here."""
    rows = component.describe()
    defaults = {row.name: row.default for row in rows}
    for option, takes in component.inner.items():
        if not takes.beside or defaults[option] is REQUIRED:
            continue
        loader, named = Loader(registry, {}), defaults[option]
        table = _flat(named) if isinstance(named, Mapping) else {"use": named}
        base = registry.load(takes.kind, table.pop("use"))
        given = {name: value for name, value in loader.checked(base, table).options.items() if name not in base.inner}
        rows += [
            row._replace(default=given.get(row.name, row.default))
            for row in base.describe()
            if row.name not in component.names
        ]
    return rows


def _with_base(given: Mapping[str, Any], component: Component) -> Mapping[str, Any]:
    """Return options with those that are not a component's own below the option whose part's options stand beside."""
    base = next((option for option, takes in component.inner.items() if takes.beside), None)
    if base is None:
        return given
    return {k if k.partition(".")[0] in component.names else f"{base}.{k}": value for k, value in given.items()}


def _spec(given: Mapping[str, Any], option: str) -> dict[str, Any]:
    """Return what was given for an option that takes a component: its name under 'use', its options, dotted."""
    named = given.get(option)
    found = _flat(named) if isinstance(named, Mapping) else {"use": named} if option in given else {}
    return found | {key.removeprefix(f"{option}."): v for key, v in given.items() if key.startswith(f"{option}.")}


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table that may nest as options with dotted names."""
    return {key.removeprefix("table."): value for key, value in flat(table, "table.")}


def _inside(origin: Origin, option: str) -> Origin:
    return lambda name: origin(f"{option}.{name}")


def _origin(config: Config, key: str) -> str:
    """Return where a value comes from; that inside a table, from where the table does."""
    found = key
    while found not in config and "." in found:
        found = found.rpartition(".")[0]
    return config.origin(found)

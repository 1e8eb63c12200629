"""A component: one named thing of a kind, its options read from its signature, checked before anything is built."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from .errors import TrainkitError, UsageError, broken_plugin, did_you_mean, nearest, printable, unknown_key, wrong_value
from .hooks import RUNTIME_PARAMETERS
from .kinds import LIST_KINDS
from .loader.guard import ForeignError, cause_of, guarded
from .loader.options import (
    InnerOption,
    OptionRow,
    help_texts,
    inner_options,
    option_rows,
    options_model,
    parameters,
    takes_any_keyword,
)

_READERS = {"loss": "forward", "metric": "update"}


@dataclass(frozen=True)
class Component:
    """Hold a loaded component.

    Args:
        kind: its kind.
        name: the name it was asked for by.
        target: the class or factory; for a live object the object itself.
        distribution: the distribution that offers it; '' for a file or a live object.
        version: the version of that distribution.
        is_live: whether `target` is the object rather than what makes it.
        at: its dotted key, as 'loss.main'; that of its kind and name if not given.
        beside: the dotted key below which its options stand, where that is not its own.
    """

    kind: str
    name: str
    target: Any
    distribution: str = ""
    version: str = ""
    is_live: bool = False
    at: str = ""
    beside: str = ""

    @cached_property
    def options(self) -> type[BaseModel]:
        """Return the model of the options; it refuses what is not an option."""
        target = _without_options if self.is_live else self.target
        return options_model(f"{self.kind} {self.name}", target, RUNTIME_PARAMETERS[self.kind])

    @cached_property
    def help(self) -> dict[str, str]:
        """Return the help text of each option that has one."""
        texts = {} if self.is_live else help_texts(self.target)
        return {name: text for name, text in texts.items() if name in self.names}

    @property
    def reads(self) -> tuple[str, ...]:
        """Return what it reads, sorted: its `reads`, or the parameters that name it; empty where nothing tells."""
        if (declared := getattr(self.target, "reads", None)) is not None and not isinstance(declared, property):
            return tuple(sorted(map(str, declared)))
        function = getattr(self.target, _READERS.get(self.kind, ""), None)
        return tuple(sorted(set(parameters(function)) - {"self"})) if function is not None else ()

    @property
    def gives(self) -> tuple[str, ...]:
        """Return what a task gives, sorted; empty where nothing tells."""
        declared = getattr(self.target, "gives", ())
        return tuple(sorted(map(str, declared))) if isinstance(declared, frozenset | set | tuple | list) else ()

    @property
    def names(self) -> list[str]:
        """Return the names of the options, in the order of the signature."""
        return [field.alias or "" for field in self.options.model_fields.values()]

    @cached_property
    def inner(self) -> dict[str, InnerOption]:
        """Return the options that take another component."""
        return inner_options(self.options)

    @property
    def place(self) -> str:
        """Return the dotted key of the component in a config; its options stand below it, or below `beside`."""
        return self.at or (f"{self.kind}.{self.name}" if self.kind in LIST_KINDS else self.kind)

    def describe(self) -> list[OptionRow]:
        """Return a row for each option, in the order of the signature."""
        return option_rows(self.options, self.help)

    def key(self, option: str) -> str:
        """Return the dotted key an option has in a config."""
        return f"{self.beside or self.place}.{option}"

    def validate(
        self,
        options: Mapping[str, Any],
        origin: Callable[[str], str] | None = None,
        others: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Return all options with checked values, the defaults of those not given included.

        Args:
            options: values by name; a dotted name is a key inside a mapping.
            origin: from the name of an option to the place its value comes from.
            others: names of options that stand beside these.

        Raises:
            UsageError: an unknown option or a wrong value; it tells place, value, what is allowed and the nearest name.
        """
        place = origin or (lambda _: "")
        for option in options:
            if (first := option.partition(".")[0]) not in self.names:
                raise unknown_key(self.key(first), [self.key(name) for name in (*others, *self.names)], place(option))
        nested = _nested(options)
        try:
            checked = self.options.model_validate(nested)
        except ValidationError as error:
            raise self._fault(error, nested, place) from None
        return {field.alias or name: getattr(checked, name) for name, field in self.options.model_fields.items()}

    def _fault(self, error: ValidationError, options: Mapping[str, Any], place: Callable[[str], str]) -> UsageError:
        fault = error.errors(include_url=False)[0]
        row = next(row for row in self.describe() if row.name == fault["loc"][0])
        if fault["type"] == "missing" and len(fault["loc"]) == 1:
            return UsageError(
                f"{self.key(row.name)}: a value is needed ({row.type})",
                why=row.help,
                do=f"add --set {self.key(row.name)}=VALUE",
            )
        path, value = _walk(options, fault["loc"])
        option = ".".join(path)
        expected = fault["msg"].removeprefix("Input ")
        expected = expected[:1].lower() + expected[1:]
        if fault["type"] == "literal_error" and isinstance(value, str):
            close = nearest(value, re.findall(r"'([^']*)'", fault["ctx"]["expected"]))
            expected += f"; did you mean '{close}'?" if close else ""
        return wrong_value(self.key(option), value, expected, place(option))

    def build(self, options: Mapping[str, Any] | None = None, **runtime: Any) -> Any:
        """Return the live object.

        Args:
            options: values as `validate` returns them; those not given keep their defaults.
            runtime: what the core passes in for this kind; a target that does not take one of them is not given it.

        Raises:
            PluginError: the target raised, in the phase 'create'. A TrainkitError passes as it is.
        """
        if self.is_live:
            return self.target
        if not takes_any_keyword(self.target):
            runtime = {name: value for name, value in runtime.items() if name in parameters(self.target)}
        try:
            return self.target(**{**(options or {}), **runtime})
        except TrainkitError:
            raise
        except Exception as error:
            raise broken_plugin(
                self.kind, self.name, self.distribution, "create", cause_of(error), self.version
            ) from error


def component_from_object(kind: str, thing: Any, name: str = "") -> Component:
    """Return the component of a live object.

    Args:
        kind: its kind.
        thing: a class or a function makes the object, as a plugin's target does; anything else is the object itself.
        name: what messages and keys call it; its own name if not given.
    """
    makes = inspect.isclass(thing) or inspect.isroutine(thing) or isinstance(thing, partial)
    own = getattr(thing, "__name__", None) or type(thing).__name__
    return Component(kind, name or own, thing, is_live=not makes)


def is_file_reference(reference: str) -> bool:
    """Return whether a reference has the form FILE.py:OBJECT rather than that of a name."""
    return reference.endswith(".py") or ".py:" in reference or "/" in reference


def component_from_file(kind: str, reference: str) -> Component:
    """Return the component that a Python file holds.

    Args:
        kind: its kind.
        reference: './mine.py:MyLoss'; the object is a class, a factory or the live object itself.

    Raises:
        UsageError: there is no such file, or no such object in it.
        PluginError: the file raised while it was imported.
    """
    file, _, name = reference.rpartition(":") if not reference.endswith(".py") else (reference, "", "")
    path = Path(file).expanduser()
    if not path.is_file():
        raise UsageError(f"{kind}: there is no file {printable(file or reference)}", do="write ./FILE.py:OBJECT")
    try:
        module = guarded(lambda: _import_file(path))
    except ForeignError as error:
        raise broken_plugin(kind, reference, "", "import", str(error)) from error
    if not hasattr(module, name):
        own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__ and n[0] != "_"]
        raise UsageError(
            f"{kind}: there is no object '{printable(name)}' in {printable(file)}{did_you_mean(name, own)}",
            why=f"it defines: {', '.join(own) or 'none'}",
            do=f"write {printable(file)}:{own[0] if own else 'OBJECT'}",
        )
    return component_from_object(kind, getattr(module, name), name=reference)


def _import_file(path: Path) -> ModuleType:
    name = "trainkit_file_" + re.sub(r"\W", "_", str(path.resolve()))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Type hints, dataclasses and worker processes look their module up by its name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _without_options() -> None:
    """Show the signature of a live object: it has no options."""


def _nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with dotted names as mappings inside mappings."""
    nested: dict[str, Any] = {}
    for name, value in options.items():
        *outer, last = name.split(".")
        inside = nested
        for part in outer:
            if not isinstance(inside.get(part), dict):
                inside[part] = {}
            inside = inside[part]
        inside[last] = dict(value) if isinstance(value, Mapping) else value
    return nested


def _walk(options: Mapping[str, Any], place: Sequence[str | int]) -> tuple[list[str], Any]:
    """Return the part of an error's place that lies in the options, and the value there.

    The rest of such a place names the branches of a union, which no user has written.
    """
    path: list[str] = []
    value: Any = options
    for part in place:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            break
        path.append(str(part))
    return path, value

"""From an entry point to a target: import one plugin, and ask it the hook of its kind."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import pluggy

from trainkit.errors import did_you_mean
from trainkit.hooks import PROJECT, KindHooks, hook_name
from trainkit.kinds import KINDS

from .guard import ForeignError, guarded

T = TypeVar("T")


class LoadError(Exception):
    """Say in which phase (import or validate) a plugin failed, and why."""

    def __init__(self, phase: str, cause: str) -> None:
        super().__init__(cause)
        self.phase, self.cause = phase, cause


def load_target(kind: str, module: str) -> Any:
    """Return what a plugin answers to the hook of a kind: a class or a factory.

    Args:
        kind: kind of the component.
        module: the entry point's value, a module or `module:object`.

    Raises:
        LoadError: the plugin raises, misspells a hook, asks for an unknown argument, or answers with something else.
    """
    plugin = checked("import", lambda: _import(module))
    function = _implementation(plugin, kind)
    target = checked("import", function)
    if not callable(target):
        raise LoadError("validate", f"{hook_name(kind)} answered with {target!r:.80}; a class or a factory is needed")
    return target


def checked(phase: str, function: Callable[[], T]) -> T:
    """Return what a function of a plugin returns; what it raises becomes the LoadError of a phase."""
    try:
        return guarded(function)
    except ForeignError as error:
        raise LoadError(phase, str(error)) from error.__cause__


def _import(reference: str) -> Any:
    module, _, attributes = reference.partition(":")
    plugin: Any = import_module(module)
    for attribute in filter(None, attributes.split(".")):
        plugin = getattr(plugin, attribute)
    return plugin


def _implementation(plugin: Any, kind: str) -> Callable[[], Any]:
    """Return the plugin's implementation of the hook of a kind.

    A manager for each plugin: it is then either registered and checked, or leaves no trace.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(KindHooks)
    hooks = [hook_name(known) for known in KINDS]
    try:
        guarded(lambda: manager.register(plugin))
        manager.check_pending()
    except ForeignError as error:
        raise LoadError("validate", _last_line(error.__cause__)) from error.__cause__
    except pluggy.PluginValidationError as error:
        unknown = next((name for name in vars(manager.hook) if name not in hooks and not name.startswith("_")), "")
        raise LoadError("validate", f"there is no hook '{unknown}'{did_you_mean(unknown, hooks)}") from error
    implementations = getattr(manager.hook, hook_name(kind)).get_hookimpls()
    if not implementations:
        others = [name for name in hooks if getattr(manager.hook, name).get_hookimpls()]
        found = f"it implements {', '.join(others)}" if others else "is @hookimpl missing above it?"
        raise LoadError("validate", f"the plugin does not implement {hook_name(kind)}; {found}")
    function: Callable[[], Any] = implementations[0].function
    return function


def _last_line(error: BaseException | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

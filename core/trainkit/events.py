"""Events, resolved once: from hook implementations to plain lists; an event that nobody hears costs nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pluggy

from . import errors
from .hooks import PROJECT, Events

Listener = Callable[..., Any]
EVENT_NAMES = tuple(name for name in vars(Events) if not name.startswith("_"))
EVENT_PREFIXES = tuple({f"{name.partition('_')[0]}_" for name in EVENT_NAMES})


class EventLists:
    """Hold for each event the list of functions that hear it, in the order of registration."""

    on_run_start: list[Listener]
    on_stage_start: list[Listener]
    on_epoch_start: list[Listener]
    select_samples: list[Listener]
    on_loss: list[Listener]
    on_gradients: list[Listener]
    on_step: list[Listener]
    on_log: list[Listener]
    before_evaluation: list[Listener]
    after_evaluation: list[Listener]
    swap_weights_in: list[Listener]
    swap_weights_out: list[Listener]
    on_pictures: list[Listener]
    on_texts: list[Listener]
    on_checkpoint: list[Listener]
    on_epoch_end: list[Listener]
    on_stage_end: list[Listener]
    on_run_end: list[Listener]

    __slots__ = EVENT_NAMES

    def __init__(self, lists: Mapping[str, list[Listener]]) -> None:
        for name in EVENT_NAMES:
            setattr(self, name, lists[name])

    def followed_by(self, others: EventLists) -> EventLists:
        """Return the lists in which others hear each event after those of this one."""
        return EventLists({name: [*getattr(self, name), *getattr(others, name)] for name in EVENT_NAMES})


def _listeners(manager: pluggy.PluginManager, name: str) -> list[Listener]:
    """Return what is registered for an event, in the order in which it hears."""
    specification = tuple(inspect.signature(getattr(Events, name)).parameters)[1:]
    return [_positional(impl, specification) for impl in reversed(getattr(manager.hook, name).get_hookimpls())]


def _positional(impl: pluggy.HookImpl, specification: tuple[str, ...]) -> Listener:
    """Return the implementation as a function of all arguments of the specification, in their order."""
    function: Listener = impl.function
    wanted = tuple(impl.argnames)
    if wanted == specification:
        return function
    places = tuple(specification.index(name) for name in wanted)
    return lambda *arguments: function(*(arguments[place] for place in places))


def resolve(components: Iterable[tuple[str, object]]) -> EventLists:
    """Register live components with the run's own plugin manager and resolve every event.

    A component that is a module is followed by the modules inside it, so that a loss inside a loss hears as one alone.

    Args:
        components: (label, object) pairs; the label, as 'callback early-stopping', stands in messages.

    Raises:
        PluginError: an implementation of an unknown event, or one that asks for an unknown argument.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Events)
    # pluggy calls the newest implementation first: registered in reverse, they are called in the order of the config.
    for label, component in reversed(list(_with_inner(components))):
        try:
            manager.register(component, name=label)
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise _wrong_event(label, error) from error
    return EventLists({name: _listeners(manager, name) for name in EVENT_NAMES})


def _with_inner(components: Iterable[tuple[str, object]]) -> Iterator[tuple[str, object]]:
    seen: set[int] = set()
    for label, component in components:
        modules = getattr(component, "named_modules", None)
        for path, heard in modules() if modules is not None else [("", component)]:
            if id(heard) not in seen:
                seen.add(id(heard))
                yield f"{label} {path}".strip(), heard


def _wrong_event(label: str, error: pluggy.PluginValidationError) -> errors.PluginError:
    text = str(error)
    unknown = next((word.strip("'\"") for word in text.split() if word.strip("'\"").startswith(EVENT_PREFIXES)), "")
    close = errors.nearest(unknown, EVENT_NAMES) if unknown else None
    return errors.PluginError(
        f"{label} implements an event that does not exist, or asks for an argument it does not have",
        why=text.splitlines()[0] + (f"; did you mean '{close}'?" if close and close != unknown else ""),
        do="the events and their arguments are listed in trainkit.hooks",
    )

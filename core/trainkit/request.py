"""What a user asked for: settings in layers, and live objects that stand for names in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config import Layer, layer_of
from .kinds import LIST_KINDS
from .registry import Registry
from .sources import environment_layer, read_file

Listeners = Iterable[tuple[str, object]]
Reporter = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """Hold what a user asked for.

    Args:
        layers: settings, lowest layer first.
        live: objects that stand for names in the layers.
        registry: where names become components.
        listeners: (label, object) pairs that hear the run's events.
        report: hears one-line messages, as of a checkpoint set aside.
    """

    layers: Sequence[Layer] = ()
    live: Mapping[str, Any] = field(default_factory=dict)
    registry: Registry = field(default_factory=Registry)
    listeners: Listeners = ()
    report: Reporter = print


def request_of(
    config: str | Path | None,
    named: Mapping[str, Any],
    data: str | Path | None,
    settings: Mapping[str, Any] | None,
    registry: Registry | None,
    listeners: Listeners,
) -> Request:
    """Return the request of a Python call: a file, components by kind as names or live objects, settings by key."""
    live: dict[str, Any] = {}
    layer: dict[str, Any] = {"data": str(data)} if data is not None else {}
    for kind, given in named.items():
        if given is None:
            continue
        items = given if isinstance(given, list | tuple) else [given]
        names = [_name_of(item, live) for item in items]
        layer[kind] = names if kind in LIST_KINDS else names[0]
    asked = _with_names(settings or {}, live)
    files = [read_file(Path(config))] if config is not None else []
    arguments = layer_of(layer, "argument") | layer_of(asked, "settings argument")
    return Request([*files, environment_layer(), arguments], live, registry or Registry(), listeners)


def _with_names(settings: Mapping[str, Any], live: dict[str, Any]) -> dict[str, Any]:
    """Return settings with names in place of live objects, as in {"loss.main": MyLoss()}."""
    named: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            named[key] = _with_names(value, live)
        else:
            named[key] = _name_of(value, live) if callable(value) else value
    return named


def _name_of(item: Any, live: dict[str, Any]) -> str:
    if isinstance(item, str):
        return item
    name = f"live:{getattr(item, '__qualname__', type(item).__qualname__)}"
    while live.get(name, item) is not item:
        name += "'"
    live[name] = item
    return name

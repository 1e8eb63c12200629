"""Events: resolved to lists, in the order of the config, and strict about names."""

from __future__ import annotations

import inspect

import pytest
from torch import nn
from trainkit import hookimpl
from trainkit.errors import PluginError
from trainkit.events import EVENT_NAMES, EventLists, resolve
from trainkit.hooks import Events


class Noted:
    """Note which events were heard."""

    def __init__(self, name: str, notes: list) -> None:
        self.name, self.notes = name, notes

    @hookimpl
    def on_step(self, run: object) -> None:
        self.notes.append((self.name, run))

    @hookimpl
    def after_evaluation(self, results: dict) -> None:
        self.notes.append((self.name, results))


def test_listeners_are_called_in_the_order_of_the_config_with_the_arguments_they_take() -> None:
    notes: list = []
    events = resolve([("a", Noted("a", notes)), ("b", Noted("b", notes)), ("nothing", object())])
    for hear in events.on_step:
        hear("run")
    for hear in events.after_evaluation:
        hear("run", "val", {"loss": 1.0})
    assert notes == [("a", "run"), ("b", "run"), ("a", {"loss": 1.0}), ("b", {"loss": 1.0})]


def test_a_full_implementation_is_called_without_a_wrapper() -> None:
    noted = Noted("a", [])
    assert resolve([("a", noted)]).on_step == [noted.on_step]


def test_an_event_nobody_hears_is_an_empty_list() -> None:
    assert all(getattr(resolve([]), name) == [] for name in EVENT_NAMES)


def test_modules_inside_a_component_hear_after_it_and_once() -> None:
    class Hearer(nn.Module):
        def __init__(self, name: str, notes: list, *inner: nn.Module) -> None:
            super().__init__()
            self.name, self.notes = name, notes
            self.inner = nn.ModuleList(inner)

        @hookimpl
        def on_step(self) -> None:
            self.notes.append(self.name)

    notes: list = []
    inmost = Hearer("inmost", notes)
    loss = Hearer("outer", notes, Hearer("inner", notes, inmost), inmost)
    for hear in resolve([("loss", loss), ("callback", inmost)]).on_step:
        hear("run")
    assert notes == ["outer", "inner", "inmost"]


def test_misspelt_events_are_refused_with_the_right_spelling() -> None:
    class Misspelt:
        @hookimpl
        def on_stepp(self) -> None: ...

    with pytest.raises(PluginError, match="did you mean 'on_step'"):
        resolve([("callback mine", Misspelt())])


def test_unknown_arguments_are_refused() -> None:
    class Greedy:
        @hookimpl
        def on_step(self, run: object, gradients: object) -> None: ...

    with pytest.raises(PluginError, match="callback mine"):
        resolve([("callback mine", Greedy())])


def test_every_specification_has_a_list_and_a_sentence() -> None:
    assert set(EventLists.__slots__) == set(EVENT_NAMES) == {n for n in vars(Events) if not n.startswith("_")}
    assert all(inspect.getdoc(getattr(Events, name)) for name in EVENT_NAMES)

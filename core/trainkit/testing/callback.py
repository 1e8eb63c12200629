"""Checks of callbacks: they hear events that exist, and their state survives a resume."""

from __future__ import annotations

import copy

from trainkit.contracts import Stateful
from trainkit.events import EVENT_NAMES, resolve

from .component import ComponentConformance, plain, same


class CallbackConformance(ComponentConformance):
    """Check a callback."""

    kind = "callback"

    def test_hears_events_that_exist(self) -> None:
        """It implements at least one event, none misspelt, each with arguments that exist."""
        lists = resolve([(f"callback {self.component}", self.build())])
        assert any(getattr(lists, name) for name in EVENT_NAMES), "it hears no event: are its methods marked @hookimpl?"

    def test_state_is_plain(self) -> None:
        """What it saves nests numbers, strings and tensors only; one that saves nothing has neither method."""
        callback = self.build()
        assert hasattr(callback, "state_dict") == hasattr(callback, "load_state_dict")
        assert plain(callback.state_dict() if isinstance(callback, Stateful) else {})

    def test_state_continues(self) -> None:
        """Its state in a fresh callback is the same state."""
        one, other = self.used(), self.build()
        if not isinstance(one, Stateful):
            assert not hasattr(other, "state_dict")
            return
        other.load_state_dict(copy.deepcopy(one.state_dict()))
        assert same(other.state_dict(), one.state_dict())

    def used(self) -> object:
        """Return a callback that has heard something; override it for one that keeps state."""
        return self.build()

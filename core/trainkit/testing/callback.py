"""Checks of callbacks: they hear events that exist, and their state survives a resume."""

from __future__ import annotations

import copy
import tempfile

from trainkit.api import start
from trainkit.contracts import Stateful
from trainkit.events import EVENT_NAMES, resolve

from .component import ComponentConformance, plain, same
from .resuming import saved
from .tiny import tiny_request


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

    def test_observes_where_it_says_so(self) -> None:
        """With `only_observes` it changes nothing: weights, optimizer and results of a run are those without it."""
        if not getattr(self.build(), "only_observes", False):
            return
        with tempfile.TemporaryDirectory() as folder:
            ends = []
            for number, callbacks in enumerate(([], [self.build()])):
                result = start(tiny_request({"out": f"{folder}/{number}"}, callbacks=callbacks))
                kept = saved(result.directory)
                ends.append([kept["model.safetensors"], kept["optimizer.safetensors"], result.summary["results"]])
        assert same(ends[0], ends[1]), "a run with it comes to something else: take its `only_observes` away"

    def used(self) -> object:
        """Return a callback that has heard something; override it for one that keeps state."""
        return self.build()

"""An adapter that begins with what another run left: read by a new run, which is whole without it from then on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import Config, Value
from .conformity import asked
from .contracts import Starts
from .tasks import lacking

if TYPE_CHECKING:
    from .live import Run

KEY = "adapter.start"


def settle(run: Run) -> None:
    """Put in force, in the settings of a new run, what followed from the start of its adapter."""
    adapter = run.components["adapter"]
    if lacking(adapter, Starts):
        return
    with asked("the adapter", "say what follows from its start"):
        options = adapter.settled()
    origin = str(run.config.get(KEY))
    run.config.add({f"adapter.{name}": Value(value, origin, "that of the start") for name, value in options.items()})


def without_start(config: Config) -> Config:
    """Return the settings of a run, changed to load what its checkpoints hold: nothing else is needed."""
    if config.get(KEY) is not None:
        config.add({KEY: Value(None, "checkpoint", "the run has begun")})
    return config

"""Decisions that all ranks share: a signal that one heard, an end that one asked for, are those of all, at one step."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainkit.live import Run


@dataclass
class Ears:
    """Hear signals for a run of several ranks, which looks here at moments that all ranks share.

    Whoever started this process may be killed: that counts as a request to end with the state saved.
    """

    signal: int | None = None
    parent: int = field(default_factory=os.getppid)

    def heard(self) -> int:
        """Return the number of the signal that arrived, or 0."""
        if self.signal is None and os.getppid() != self.parent:
            self.signal = signal.SIGTERM
        return self.signal or 0


def agree(run: Run) -> None:
    """Let every rank know what any of them heard, or was asked for: a signal, the end of the run, of the stage."""
    world = run.world
    if world.is_alone:
        return
    heard = run.ears.heard() if isinstance(run.ears, Ears) else 0
    rows = world.table([run.signal or heard, run.stop_reason != "", run.moment.stage_ended])
    signals, stops, ends = ([int(row[column]) for row in rows] for column in range(3))
    run.signal = max(signals) or None
    if any(stops):
        run.stop_reason = next(filter(None, world.everyones(run.stop_reason)))
    if any(ends) and not all(ends):
        run.stage_reasons = max(world.everyones(run.stage_reasons), key=len)
        run.moment.stage_ended = True

"""How many processes prepare batches: a number that was asked for, or what turns out fastest on this machine.

Batches are functions of their number, so another number of processes changes when a batch is there, never what it is.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from .data import EpochBatches
from .errors import printable

CANDIDATES = (2, 4)
COUNTED = 20
MOST_SEEN = 4 * COUNTED
WORTH_SHARE = 0.1
WORTH_SECONDS = 1.0
GAIN = 0.05
PATIENCE_SECONDS = 30.0
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps what processes share, not a place for files of ours

_log = logging.getLogger(__name__)


@dataclass
class Trial:
    """Measure micro-batches that a number of processes prepare.

    The first ones after a start are not counted: they wait for processes to come up, and those behind them are ready
    at once because of that wait.

    Args:
        workers: how many processes.
    """

    workers: int
    starts: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    works: list[float] = field(default_factory=list)
    seen: int = 0

    def note(self, place: int, waited: float, worked: float) -> None:
        """Note the seconds that the loop waited for a micro-batch and worked on it; `place` counts from a start."""
        self.seen += 1
        if place == 0:
            self.starts.append(waited)
        elif place >= max(2, 2 * self.workers):
            self.waits.append(waited)
            self.works.append(worked)

    @property
    def is_over(self) -> bool:
        """Return whether enough was seen; epochs that are shorter than a start takes may never give a count."""
        return len(self.waits) >= COUNTED or self.seen >= MOST_SEEN

    @property
    def waiting(self) -> float:
        """Return the seconds of waiting per micro-batch."""
        return statistics.fmean(self.waits) if self.waits else 0.0

    @property
    def per_batch(self) -> float:
        """Return the seconds per micro-batch; by the median of the work, as an evaluation may lie between two."""
        return self.waiting + statistics.median(self.works) if self.works else 0.0

    @property
    def share(self) -> float:
        """Return the share of the time that is waiting."""
        return self.waiting / self.per_batch if self.per_batch else 0.0

    def seconds(self, batches: int) -> float:
        """Return the forecast of an epoch of so many micro-batches; infinite where nothing was counted."""
        if not self.works:
            return float("inf")
        start = statistics.fmean(self.starts) if self.workers and self.starts else 0.0
        return start + self.per_batch * batches

    def is_worth_more(self, batches: int) -> bool:
        """Return whether waiting is so much of an epoch that more processes are worth a trial."""
        return self.share > WORTH_SHARE and self.waiting * batches > WORTH_SECONDS


class Workers:
    """Give the micro-batches of epochs, prepared by as many processes as were asked for or turn out fastest.

    With 'auto' none does at first. Where more than a tenth of the time, and more than a second an epoch, is spent
    waiting for batches, 2 and then 4 processes, but no more than cores, are tried for some twenty micro-batches each,
    and what is fastest by 5 % or more stays. Whatever fails in such a trial is done again without processes. Nothing is
    tried where the system starts processes anew instead of forking them, and without room in shared memory.

    Args:
        asked: a number of processes, or auto.
    """

    def __init__(self, asked: int | Literal["auto"]) -> None:
        self.now = asked if isinstance(asked, int) else 0
        self.candidates = candidates() if asked == "auto" else []
        self.trial: Trial | None = Trial(0) if self.candidates else None
        self.done: list[Trial] = []
        self.reason = ""
        self._waited = self._began = 0.0

    def stream(self, epoch: EpochBatches, start: int, pin_memory: bool) -> Iterator[dict[str, Any]]:
        """Yield the micro-batches of an epoch from number `start` on."""
        number = start
        while self.trial is not None and number < len(epoch):
            for batch in self._tried(self.trial, epoch, number, pin_memory):
                yield batch
                number += 1
        # An empty rest starts no processes.
        if number < len(epoch):
            began = time.perf_counter()
            for batch in epoch.iterate(number, self.now, pin_memory):
                self._waited += time.perf_counter() - began
                yield batch
                began = time.perf_counter()

    def loading_share(self) -> float | None:
        """Return the share of the time since the last question that was spent waiting, or None the first time."""
        now, began = time.perf_counter(), self._began
        share = self._waited / (now - began) if began else None
        self._began, self._waited = now, 0.0
        return share

    def document(self) -> dict[str, Any]:
        """Return what was chosen and what was measured for that, as JSON."""
        return {
            "workers": self.now,
            "reason": self.reason,
            "trials": [
                {"workers": trial.workers, "seconds": trial.per_batch, "waiting": trial.share} for trial in self.done
            ],
        }

    def _tried(self, trial: Trial, epoch: EpochBatches, number: int, pin_memory: bool) -> Iterator[dict[str, Any]]:
        """Yield micro-batches of a trial until it is over or fails; what failed is left to be done again."""
        # Processes that hang, as a lock that was held when they were forked makes them, must not hold the run.
        patience = PATIENCE_SECONDS + 20 * self.done[0].waiting if trial.workers else 0.0
        source: Iterator[dict[str, Any]] | None = None
        for place in range(len(epoch) - number):
            began = time.perf_counter()
            try:
                source = source or epoch.iterate(number, trial.workers, pin_memory, patience)
                batch = next(source)
            except Exception as error:
                if not trial.workers:
                    raise
                # Its traceback keeps the processes alive, which are to end now.
                self._give_up(trial, error.with_traceback(None))
                return
            ready = time.perf_counter()
            self._waited += ready - began
            yield batch
            trial.note(place, ready - began, time.perf_counter() - ready)
            if trial.is_over:
                self._conclude(trial, len(epoch), batch)
                return

    def _conclude(self, trial: Trial, batches: int, batch: Mapping[str, Any]) -> None:
        """Take the fastest so far, and try the next candidate where waiting is still worth it."""
        before = min((other.seconds(batches) for other in self.done), default=float("inf"))
        self.done.append(trial)
        faster = trial.seconds(batches) < (1 - GAIN) * before
        if faster:
            self.now = trial.workers
        following = self.candidates.pop(0) if self.candidates and faster and trial.is_worth_more(batches) else 0
        if following and not has_room(batch, following):
            self.reason = f"{SHARED_MEMORY} has too little room for the batches of {following} processes"
            following = 0
        self.trial = Trial(following) if following else None
        if self.trial is None and not self.reason:
            self.reason = self._said(batches)

    def _said(self, batches: int) -> str:
        alone = self.done[0]
        if len(self.done) == 1:
            return f"loading takes {alone.share:.0%} of the time without processes"
        compared = ", ".join(f"{trial.workers}: {trial.seconds(batches):.3g} s" for trial in self.done)
        return f"loading takes {alone.share:.0%} of the time without processes; an epoch by their number: {compared}"

    def _give_up(self, trial: Trial, error: Exception) -> None:
        self.trial, self.candidates = None, []
        line = printable(str(error)).strip().splitlines()
        self.reason = f"{trial.workers} processes failed: {type(error).__name__}: {line[-1] if line else ''}"
        _log.warning("batches are prepared by %d processes from here on: %s", self.now, self.reason)


def candidates() -> list[int]:
    """Return the numbers of processes that are worth a trial here: none where processes are not forked."""
    chosen = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [number for number in CANDIDATES if number <= cores] if chosen == "fork" else []


def has_room(batch: Mapping[str, Any], workers: int, free: Callable[[Path], int] | None = None) -> bool:
    """Return whether shared memory holds twice what so many processes may have ready: containers often have little."""
    size = sum(value.nbytes for value in batch.values() if isinstance(value, torch.Tensor))
    ready = 2 * workers + 2
    try:
        room = free(SHARED_MEMORY) if free is not None else shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return True
    return room >= 2 * ready * size

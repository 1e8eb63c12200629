"""How busy the machine is: shares of processor time between two readings, and the callback that logs them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat
from trainkit import hookimpl
from trainkit.routine import write_row

from .gpu import GIB, driver_values, gpu_values
from .procfs import Busy, Process, busy, family, memory, read_processes

if TYPE_CHECKING:
    from trainkit.live import Run

TRAIN = "train/loss"
PROCESSOR = "processor and memory"
_log = logging.getLogger(__name__)


class Machine:
    """Read how busy processor and memory are; shares of time are those since the reading before.

    Args:
        root: where proc and sys lie.
        clock: seconds.
    """

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self.root, self.clock = root, clock
        self._busy: Busy | None = None
        self._processes: dict[int, Process] = {}
        self._read_at = clock()

    def values(self) -> dict[str, float]:
        """Return the values by tag; raise OSError where the system does not tell them, as outside of Linux."""
        proc = self.root / "proc"
        now, cores = self.clock(), busy((proc / "stat").read_text())
        processes = family(read_processes(proc), os.getpid())
        used, total = memory(self.root)
        found = {
            "system/memory_percent": 100 * used / total,
            "system/process_memory_gib": sum(one.pages for one in processes.values()) * _page_bytes() / GIB,
        }
        if self._busy is not None and cores.all > self._busy.all and now > self._read_at:
            ticks = sum(one.ticks - self._processes.get(pid, _NEW).ticks for pid, one in processes.items())
            share = (cores.work - self._busy.work) / (cores.all - self._busy.all)
            found["system/cpu_percent"] = 100 * share
            found["system/process_cpu_percent"] = 100 * ticks / _ticks_a_second() / (now - self._read_at)
        self._busy, self._processes, self._read_at = cores, processes, now
        return found


_NEW = Process(parent=0, ticks=0, pages=0)


def _page_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE")


def _ticks_a_second() -> int:
    return os.sysconf("SC_CLK_TCK")


class SystemMonitor:
    """Log how busy processor, memory and GPU are, beside the rows of training: their tags begin with system.

    The processor's shares are averages since the reading before, those of the processes (the run's own and the workers
    below it) with 100 for one core; memory is that at the moment, and what processes share is counted in each. In a
    container with less memory than the machine, its limit is what counts. Of a GPU there are its memory, and with the
    package nvidia-ml-py its load, temperature and power. What the system does not tell is left out and said once.
    Nothing is changed in the run, and nothing waits for the GPU.

    Args:
        every_seconds: least time between two readings; 0 reads at every row of training.
    """

    only_observes = True

    def __init__(self, every_seconds: NonNegativeFloat = 10.0) -> None:
        self.every_seconds = every_seconds
        self.machine = Machine()
        self._due = 0.0
        self._untold: set[str] = set()

    @hookimpl
    def on_run_start(self) -> None:
        """Begin to measure shares of time; the first row of training is due."""
        self._asked(PROCESSOR, self.machine.values)
        self._due = 0.0

    @hookimpl
    def on_log(self, run: Run, row: Mapping[str, float]) -> None:
        """Read and log, if this is a row of training and the last reading is old enough."""
        now = self.machine.clock()
        if TRAIN not in row or now < self._due:
            return
        self._due = now + self.every_seconds
        values = self._asked(PROCESSOR, self.machine.values)
        if run.engine.is_cuda:
            values |= self._asked("the GPU's memory", lambda: gpu_values(run.engine.device))
            values |= self._asked("the GPU's load", lambda: driver_values(run.engine.device))
        if values:
            write_row(run, values)

    def _asked(self, what: str, read: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Return what is read, or nothing, for the rest of the run, where the system does not tell."""
        if what in self._untold:
            return {}
        try:
            return read()
        except Exception as error:  # whatever a driver raises: to look on must not end a run
            self._untold.add(what)
            _log.warning("system-monitor: %s cannot be read and will not be logged: %s", what, error)
            return {}

"""Signals that end a run at its next step, with its state saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, Protocol

from .errors import ExitCode

EXIT_CODES = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
    signal.SIGUSR1: ExitCode.STOPPED,
    signal.SIGHUP: ExitCode.STOPPED,
}


class Stoppable(Protocol):
    """Look at the number of the signal that arrived, or None, wherever it can stop with its state saved."""

    signal: int | None


@contextlib.contextmanager
def heard(run: Stoppable) -> Iterator[None]:
    """Let a signal of EXIT_CODES end the run at its next step; a second SIGINT ends it at once, saving nothing.

    Handlers are those of the main thread; a run in another thread hears no signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if run.signal == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        run.signal = number

    before = {number: signal.signal(number, handle) for number in EXIT_CODES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

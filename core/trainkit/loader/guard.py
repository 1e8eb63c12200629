"""Run foreign code so that it can neither end the program, nor write into its output, nor change its randomness."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from types import FrameType, TracebackType
from typing import Any, TypeVar

from trainkit.errors import printable

T = TypeVar("T")

MAX_LINES = 4
MAX_CHARACTERS = 600


class ForeignError(Exception):
    """Carry what foreign code raised, in words; the exception itself is the cause of this one."""


def guarded(function: Callable[[], T]) -> T:
    """Return what the function returns.

    Its standard output goes to standard error, and random states are put back afterwards.

    Raises:
        ForeignError: the function raised anything, SystemExit included.
        KeyboardInterrupt: the user interrupted; one that the function raises of itself is a ForeignError.
    """
    with redirect_stdout(sys.stderr), _kept_randomness(), _interrupts() as seen:
        try:
            return function()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and seen():
                raise
            raise ForeignError(cause_of(error)) from error


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGINT came; where that cannot be known it answers yes."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield lambda: True
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> Any:
        came.append(number)
        return previous(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _kept_randomness() -> Iterator[None]:
    """Put the states of random, numpy and torch back, of those that are loaded before."""
    restore: list[Callable[[], object]] = []
    loaded = sys.modules
    if (python := loaded.get("random")) is not None:
        state = python.getstate()
        restore.append(lambda: python.setstate(state))
    if (numpy := loaded.get("numpy")) is not None:
        numbers = numpy.random.get_state()
        restore.append(lambda: numpy.random.set_state(numbers))
    if (torch := loaded.get("torch")) is not None and hasattr(torch, "set_rng_state"):
        tensor, threads = torch.get_rng_state(), torch.get_num_threads()
        restore.append(lambda: torch.set_rng_state(tensor))
        restore.append(lambda: torch.get_num_threads() == threads or torch.set_num_threads(threads))
    try:
        yield
    finally:
        for put_back in restore:
            put_back()


def cause_of(error: BaseException) -> str:
    """Return type, text and place of an exception in a few lines that are safe to print."""
    try:
        text = f"{type(error).__name__}: {error}".rstrip(": ")
    except Exception:  # the text of a foreign exception is foreign code too
        text = type(error).__name__
    text = "\n".join(text.splitlines()[:MAX_LINES])[:MAX_CHARACTERS]
    place = "" if isinstance(error, SyntaxError) else _place(error.__traceback__)
    return printable(f"{text} ({place})" if place else text)


def _place(traceback: TracebackType | None) -> str:
    """Return file and line of the innermost frame that is neither the import system's nor our own."""
    place = ""
    while traceback is not None:
        frame = traceback.tb_frame
        is_ours = frame.f_globals.get("__name__", "").startswith("trainkit.")
        if not is_ours and not frame.f_code.co_filename.startswith("<"):
            parts = frame.f_code.co_filename.replace("\\", "/").split("/")
            place = f"{'/'.join(parts[-2:])}, line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place

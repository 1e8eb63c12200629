"""Runs that are parts of something larger, as the folds of a cross-validation: each complete in itself."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import execution
from .errors import ExitCode, UsageError
from .hooks import hookimpl
from .modelpath import PLAN
from .resumption import is_done
from .rundir import RunDirectory
from .signals import heard
from .storage.filesystem import SYSTEM, remove_tree
from .storage.strict_json import with_special_numbers

if TYPE_CHECKING:
    from .costs.forecast import Forecast
    from .execution import RunResult
    from .live import Run
    from .partof import PartOf
    from .request import Request
    from .signals import Stoppable

RESULTS = "results.json"


class PartListener:
    """Tell a run what it is a part of, and hand it the signal that came before it.

    Args:
        part: what the run is a part of.
        whole: what hears signals between runs.
        before: what a run of the same plan took, which is over.
    """

    def __init__(self, part: PartOf, whole: Stoppable, before: Forecast | None = None) -> None:
        self.part, self.whole, self.before = part, whole, before
        self.forecast: Forecast | None = None

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Let the run know where it stands, and stop at once if a signal came while it was prepared."""
        run.part_of, self.forecast = self.part, run.forecast
        if self.before is not None:
            run.forecast.follow(self.before)
        if self.whole.signal is not None:
            run.signal = self.whole.signal


@contextlib.contextmanager
def guarded(whole: Stoppable, directory: RunDirectory, steps: Callable[[], int]) -> Iterator[None]:
    """Let signals stop a whole between its runs, and let its status tell how it ended if it did not end well.

    Args:
        whole: what hears signals.
        directory: of the whole, locked.
        steps: optimizer steps that all runs have made.
    """
    try:
        with heard(whole):
            yield
    except KeyboardInterrupt:
        directory.status("interrupted", reason=execution.TWICE, step=steps(), exit_code=int(ExitCode.INTERRUPTED))
        raise
    except (Exception, SystemExit) as error:
        execution.note_failure(directory, error, steps())
        raise


def is_begun(path: Path) -> bool:
    """Return whether there is a run that can be resumed: its documents were written."""
    return (path / PLAN).is_file()


def done_summary(path: Path) -> dict[str, Any] | None:
    """Return what a run that is done came to; None for one that is not done, or has not begun."""
    if not is_begun(path):
        return None
    directory = RunDirectory.read(path)
    if not is_done(directory):
        return None
    summary: dict[str, Any] = with_special_numbers(directory.read_json(RESULTS))
    return summary


def carry_out(path: Path, begin: Callable[[], RunResult], request: Request) -> RunResult:
    """Begin the run of a directory, or go on with it where it stands.

    Args:
        path: the run directory.
        begin: starts the run anew.
        request: live objects, registry and listeners for one that goes on.
    """
    if is_begun(path):
        return execution.resume(path, request)
    if path.exists():
        # Killed before its documents were written: nothing was trained.
        remove_tree(SYSTEM, path)
    return begin()


def fresh(live: Mapping[str, Any]) -> dict[str, Any]:
    """Return copies of live objects, so that a run begins with none of what another one learned.

    Raises:
        UsageError: one cannot be copied.
    """
    copied: dict[int, Any] = {}
    found = {}
    for name, given in live.items():
        try:
            found[name] = copy.deepcopy(given, copied)
        except Exception as error:
            raise UsageError(
                f"{name} cannot be copied, and each run needs one of its own",
                why=f"{type(error).__name__}: {error}".splitlines()[0],
                do="give its class, or a function that makes it, in place of the object",
            ) from error
    return found

"""Starting and resuming: one run, or several by cross-validation, whatever settings and plan ask for."""

from __future__ import annotations

from pathlib import Path

from . import execution
from .draft import make_draft
from .execution import RunResult
from .folds import crossvalidation
from .modelpath import is_cross_validation
from .request import Request


def start(request: Request) -> RunResult:
    """Carry out a new run; of a plan with folds, a run for each and one on all samples."""
    draft = make_draft(request.layers, request.registry, request.live)
    if draft.settings.folds is not None:
        return crossvalidation.start(draft, request)
    return execution.start(draft, request)


def resume(path: str | Path, request: Request | None = None) -> RunResult:
    """Go on with a run where its newest valid checkpoint stands; of one that is done, return what it came to.

    Args:
        path: the run directory.
        request: live objects, listeners and settings; of the settings only those that leave the result as it is.
    """
    if is_cross_validation(Path(path)):
        return crossvalidation.resume(Path(path), request or Request())
    return execution.resume(path, request)

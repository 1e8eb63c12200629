"""Starting and resuming: one run, or several by cross-validation, whatever settings and plan ask for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from . import execution
from .config import default_layer, merged
from .draft import make_draft
from .engine import choose_device
from .execution import RunResult
from .folds import crossvalidation
from .modelpath import is_cross_validation
from .ranks.asked import check_number, check_shares, with_ranks
from .ranks.world import joined, world_of
from .request import Request
from .settings import check_settings


def start(request: Request) -> RunResult:
    """Carry out a new run; of a plan with folds, a run for each and one on all samples."""
    world = world_of(os.environ)
    settings = check_settings(merged([default_layer(), *request.layers]))
    request = replace(request, layers=with_ranks(request.layers, settings, world))
    with joined(world, choose_device(settings.device, world), settings.rank_timeout):
        draft = make_draft(request.layers, request.registry, request.live, world)
        if world.is_alone:
            # A strategy may ask for several devices.
            check_number(draft.settings)
        check_shares(draft)
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
    return execution.resume(path, request, world_of(os.environ))

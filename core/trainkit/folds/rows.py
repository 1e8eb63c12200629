"""The out-of-fold rows of each fold, written when it is done, and made again where a kill came between."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.blame import told
from trainkit.hooks import hookimpl
from trainkit.measuring import on_own_data
from trainkit.rundir import RunDirectory
from trainkit.storage.filesystem import read_file

from .outoffold import out_of_fold

if TYPE_CHECKING:
    from trainkit.live import Run
    from trainkit.request import Request

    from .fold import Fold
    from .plan import PlannedFold

ROWS = "out-of-fold.jsonl"
MAX_BYTES = 2**31


class FoldListener:
    """Write the out-of-fold rows of a run.

    Args:
        fold: what it validates on.
    """

    def __init__(self, fold: Fold) -> None:
        self.fold = fold

    @hookimpl
    def on_run_end(self, run: Run, status: str) -> None:
        """Write what the best weights make of the samples that they have not seen."""
        if status == "done" and run.splits.val is not None and run.directory is not None:
            run.directory.write_bytes(ROWS, out_of_fold(run, self.fold.number, run.splits.val))


def rows_of(path: Path, planned: PlannedFold, request: Request) -> bytes:
    """Return the out-of-fold rows of a fold that is done.

    Args:
        path: the run directory of the cross-validation.
        planned: the fold.
        request: live objects and registry, for rows that have to be made again.
    """
    folder = path / planned.folder
    if not (folder / ROWS).is_file():
        # A kill came between the end of the run and its rows.
        run, dataset = on_own_data(RunDirectory.read(folder), "val", "best", (), None, replace(request, listeners=()))
        with told(run), contextlib.closing(RunDirectory.open(folder)) as directory:
            directory.write_bytes(ROWS, out_of_fold(run, planned.fold.number, dataset))
    return read_file(folder / ROWS, MAX_BYTES)

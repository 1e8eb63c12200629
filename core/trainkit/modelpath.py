"""Which run directory holds the model of a run, where the run is a cross-validation."""

from __future__ import annotations

from pathlib import Path

from .errors import CheckpointError
from .folds.plan import FINAL, FOLDS

RECORD, PLAN = "folds.json", "plan.json"


def is_cross_validation(path: Path) -> bool:
    """Return whether a folder is the run directory of a cross-validation."""
    return (path / RECORD).is_file()


def model_path(path: Path) -> Path:
    """Return the run directory whose model a run stands for: of a cross-validation the one on all samples.

    Raises:
        CheckpointError: that one has not begun, or was not asked for.
    """
    if not is_cross_validation(path):
        return path
    if (path / FINAL / PLAN).is_file():
        return path / FINAL
    raise CheckpointError(
        "this cross-validation has no final model",
        where=str(path),
        why="it trains one after all folds, unless refit is false",
        do=f"go on with it, by trainkit run --resume {path}, or name a fold, as {path / FOLDS / '1'}",
    )

"""best.json: which checkpoints are the best, by which values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainkit.best import Ranked, Ranking
from trainkit.errors import CheckpointError

from . import strict_json
from .filesystem import read_file
from .statetree import flatten, unflatten

MAX_BYTES = 2**16


def rendered(ranking: Sequence[Ranked]) -> bytes:
    """Return the record of a ranking: step, value and checkpoint of the best one, and of each under `ranking`."""
    entries = [
        {"step": entry.step, "value": flatten(entry.value)[0], "checkpoint": f"checkpoint-{entry.step}"}
        for entry in ranking
    ]
    return strict_json.dumps({**entries[0], "ranking": entries})


def read(path: Path) -> Ranking:
    """Return the ranking that a record holds, the best first.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        content = strict_json.loads(read_file(path, MAX_BYTES))
        ranking = tuple(_entry(entry) for entry in content.get("ranking", [content]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError("the record of the best checkpoint is damaged", where=str(path)) from error
    if not ranking:
        raise CheckpointError("the record of the best checkpoint is damaged", where=str(path), why="it names none")
    return ranking


def _entry(entry: Mapping[str, Any]) -> Ranked:
    step = entry["step"]
    if type(step) is not int or step < 0:
        raise ValueError(f"{step!r} is no step")
    return Ranked(step, float(unflatten(entry["value"], {})))

"""What is wrong with data, found out without training on it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .config import default_layer, layer_of, merged
from .conformity import asked
from .contracts import Finding, Inspection, Inspects, Splits
from .errors import DataError, UsageError
from .tasks import build_task, lacking

if TYPE_CHECKING:
    from .request import Request


def inspect(request: Request) -> Inspection:
    """Return what a task finds out about data; one that cannot inspect is asked to read it.

    Args:
        request: the data, the task and its options; of the environment's settings those of the task.

    Raises:
        UsageError: the request sets what has no bearing on data.
        DataError: there is nothing to look at, or a task that cannot inspect finds a fault.
    """
    for layer in request.layers:
        for key, value in layer.items():
            if not (key == "data" or key.startswith("task.") or value.origin.startswith("$")):
                raise UsageError(
                    f"{key} has no bearing on the data", where=value.origin, why="only options of the task have"
                )
    config = merged([default_layer(), *request.layers])
    task = build_task(config, request.registry, request.live)
    # What a task proposes for its own options counts in a run, and so it counts here.
    own = layer_of({key: value for key, value in task.defaults.items() if key.startswith("task.")}, "task")
    if own:
        config = merged([default_layer() | {"task.use": config.history["task.use"][-1]}, own, *request.layers])
        task = build_task(config, request.registry, request.live)
    data = _existing(config.get("data"))
    if not lacking(task, Inspects):
        with asked(f"task {config['task.use']}", "inspect the data"):
            found: Inspection = cast("Inspects", task).inspect(data)
            return found
    with asked(f"task {config['task.use']}", "read the data"):
        return read_inspection(task.read(data, 0))


def _existing(data: object) -> Path:
    if data is None:
        raise UsageError("no data is named", do="trainkit validate DATA")
    path = Path(str(data)).expanduser()
    if not path.exists():
        raise DataError("there is no such file or folder", where=str(data), do="check the path")
    return path


def read_inspection(splits: Splits) -> Inspection:
    """Return what reading tells about data: samples that were left out are faults, warnings are remarks."""
    skipped = [Finding("skipped", place, reason) for place, reason in splits.skipped]
    remarks = [Finding("warning", "", warning, is_fault=False) for warning in splits.warnings]
    counts = {name: len(dataset) for name, dataset in splits.items()}
    return Inspection(splits.source, "as the task reads it", counts, [*skipped, *remarks])


def inspection_document(found: Inspection) -> dict[str, Any]:
    """Return an inspection as JSON."""
    faults = sum(finding.is_fault for finding in found.findings)
    return asdict(found) | {"faults": faults, "remarks": len(found.findings) - faults}

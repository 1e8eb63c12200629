"""Who raised: an exception out of the loop, told as the failure of the component it came from."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import torch

from .errors import ResourceError, RunFailed, TrainkitError, printable

if TYPE_CHECKING:
    from .live import Run


def explained(run: Run, error: Exception) -> Exception:
    """Return the error as a user should read it, or the error itself where it is trainkit's own fault."""
    if isinstance(error, TrainkitError):
        return error
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return out_of_memory(run, error)
    label = culprit(run, error)
    if label is None:
        return error
    place = traceback.extract_tb(error.__traceback__)[-1]
    return RunFailed(
        f"{label} raised {type(error).__name__} at step {run.moment.step + 1}: {printable(str(error))}",
        where=f"{place.filename}:{place.lineno} in {place.name}",
        do=f"correct it, then go on: trainkit run --resume {run.directory.path}" if run.directory else "",
    )


def culprit(run: Run, error: Exception) -> str | None:
    """Return the label of the component whose package the innermost foreign frame of the traceback lies in."""
    packages = {type(component).__module__.partition(".")[0]: label for label, component in run.components.items()}
    packages |= {type(run.task).__module__.partition(".")[0]: f"task {run.config['task.use']}"}
    packages.setdefault(type(run.model).__module__.partition(".")[0], "the model")
    for own in ("trainkit", "torch", "builtins"):
        packages.pop(own, None)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in packages:
            return packages[package]
    return None


def out_of_memory(run: Run, error: BaseException) -> ResourceError:
    """Return the message of a run that does not fit into memory, with what would make it fit."""
    loop = run.settings.loop
    half = max(1, loop.batch_size // 2)
    return ResourceError(
        f"out of memory at step {run.moment.step + 1}, with micro-batches of {loop.batch_size}",
        why=printable(str(error)).splitlines()[0] if str(error) else "",
        do=f"--set loop.batch_size={half} --set loop.accumulate={loop.accumulate * 2} (the same effective batch),\n"
        "--precision bf16, or --set loop.gradient_checkpointing=true",
    )

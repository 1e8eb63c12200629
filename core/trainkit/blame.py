"""Who raised: an exception out of the loop, told as the failure of the component it came from."""

from __future__ import annotations

import contextlib
import errno
import re
import shlex
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .errors import ResourceError, RunFailed, TrainkitError, printable
from .storage.filesystem import disk_error

if TYPE_CHECKING:
    from .live import Run

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE)
# The two forms in which PyTorch reports what happened in a loader's process.
IN_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process")
LOST_WORKER = re.compile(r"DataLoader worker \(pid")


@contextlib.contextmanager
def told(run: Run) -> Iterator[None]:
    """Raise what happens inside as a user should read it."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise explained(run, error) from error


def explained(run: Run, error: BaseException) -> BaseException:
    """Return the error as a user should read it, or the error itself where it is trainkit's own fault."""
    if isinstance(error, TrainkitError):
        return error
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return out_of_memory(run, error)
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return disk_error(error, Path(str(error.filename or (run.directory.path if run.directory else "."))))
    if LOST_WORKER.search(str(error)) or from_multiprocessing(error):
        return lost_worker(run, error)
    if found := IN_WORKER.match(error_text(error)):
        return failed_worker(run, error, found[1])
    label = culprit(run, error)
    if label is None and not isinstance(error, SystemExit):
        return error
    place = traceback.extract_tb(error.__traceback__)[-1]
    return RunFailed(
        f"{label or 'a part of the run'} raised {type(error).__name__} {moment_text(run)}: {error_text(error)}",
        where=f"{place.filename}:{place.lineno} in {place.name}",
        do=f"correct it, then {go_on(run)}",
    )


def culprit(run: Run, error: BaseException) -> str | None:
    """Return the label of the component that the error came out of, the innermost one; None if it was none.

    A component is known by a frame that is a method of it, and else by a frame of its package.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][::-1]
    owners = {id(part): label for label, part in labelled(run).items()}
    owners |= {id(module): label_of(run, "loss") for module in run.loss.modules()}
    owners |= {id(module): "the model" for module in run.model.modules()}
    for frame in frames:
        if (label := owners.get(id(frame.f_locals.get("self")))) is not None:
            return label
    packages = {package_of(part): label for label, part in {**labelled(run), "the model": run.model}.items()}
    for own in ("trainkit", "torch", "builtins"):
        packages.pop(own, None)
    names = (str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame in frames)
    return next((packages[name] for name in names if name in packages), None)


def labelled(run: Run) -> dict[str, object]:
    """Return the live parts of a run by the label they have in messages, as 'callback tensorboard'."""
    parts = {**run.components, "task": run.task, "scheduler": run.scheduler}
    return {label_of(run, label): part for label, part in parts.items() if part is not None}


def label_of(run: Run, label: str) -> str:
    """Return a label with the component's name."""
    return f"{label} {run.config[f'{label}.use']}" if f"{label}.use" in run.config else label


def package_of(part: object) -> str:
    """Return the top-level package of a live object's class."""
    return type(part).__module__.partition(".")[0]


def moment_text(run: Run) -> str:
    """Return where in the run something happened."""
    return f"after step {run.moment.step}" if run.moment.step else "in the first step"


def go_on(run: Run) -> str:
    """Return how to go on with a run."""
    directory = directory_of(run)
    command = run.part_of.resume if run.part_of is not None else "trainkit run --resume"
    return f"go on: {command} {shlex.quote(str(directory))}" if directory else "try again"


def directory_of(run: Run) -> Path | None:
    """Return the run directory that a user knows: of a run that is a part of another one, that of the whole."""
    if run.part_of is not None:
        return run.part_of.directory
    return run.directory.path if run.directory is not None else None


def error_text(error: BaseException) -> str:
    """Return what an exception says, harmless to a terminal; a KeyError's text is its message, not its repr."""
    argument = error.args[0] if len(error.args) == 1 else error
    return printable(str(argument))


def failed_worker(run: Run, error: BaseException, name: str) -> RunFailed:
    """Return the message of an exception in a process that prepares batches; its text ends with the traceback there."""
    lines = error_text(error).strip().splitlines()
    places = re.findall(r'File "(.+)", line (\d+), in (\S+)', error_text(error))
    return RunFailed(
        f"a worker process that prepares batches raised {name} {moment_text(run)}: "
        + lines[-1].removeprefix(f"{name}: "),
        where="{}:{} in {}".format(*places[-1]) if places else "",
        do=f"correct it, then {go_on(run)}",
    )


def from_multiprocessing(error: BaseException) -> bool:
    """Return whether a connection to another process broke."""
    if not isinstance(error, OSError | EOFError):
        return False
    modules = (str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(module.startswith("multiprocessing.") for module in modules)


def lost_worker(run: Run, error: BaseException) -> ResourceError:
    """Return the message of a process that prepares batches and is gone."""
    return ResourceError(
        f"a worker process that prepares batches was lost {moment_text(run)}",
        why=f"{error_text(error).splitlines()[0]}\nan operating system that is short of memory ends processes so",
        do=f"take fewer of them, as --set loop.workers=0, and {go_on(run)}",
    )


def out_of_memory(run: Run, error: BaseException) -> ResourceError:
    """Return the message of a run that does not fit into memory, with what would make it fit."""
    loop = run.settings.loop
    half = max(1, loop.batch_size // 2)
    return ResourceError(
        f"out of memory {moment_text(run)}, with micro-batches of {loop.batch_size}",
        why=printable(str(error)).splitlines()[0] if str(error) else "",
        do=f"--set loop.batch_size={half} --set loop.accumulate={loop.accumulate * 2} (the same effective batch),\n"
        "--precision bf16, or --set loop.gradient_checkpointing=true",
    )

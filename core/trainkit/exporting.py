"""A trained model in a folder for other programs: its weights, whatever an adapter learned worked into them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from .base import Base
from .conformity import asked
from .contracts import Exports, Merges
from .errors import UsageError
from .modelpath import model_path
from .rundir import RunDirectory
from .storage import tensorfile
from .storage.filesystem import SYSTEM, TEMPORARY, discard, disk_error, write_file
from .tasks import lacking
from .trained import load_trained
from .weights import MODEL_FILE, base_files

if TYPE_CHECKING:
    from .live import Run
    from .request import Request


@dataclass(frozen=True)
class Exported:
    """Hold what was written.

    Args:
        directory: the folder.
        step: the optimizer step of the checkpoint.
        files: the size in bytes of each file, by name.
    """

    directory: Path
    step: int
    files: dict[str, int]

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        return {"directory": str(self.directory), "step": self.step, "files": self.files}


def exported(path: Path, to: Path, checkpoint: str, request: Request) -> Exported:
    """Write the model of a checkpoint into a folder; the data of the run is not needed.

    Args:
        path: the run directory.
        to: a folder that is new or empty.
        checkpoint: 'best', 'last' for the newest one, or the name of one, as 'checkpoint-120'.
        request: registry, live objects, reporter.

    Raises:
        UsageError: the folder holds something, or the adapter cannot be worked into the model.
    """
    check_free(to)
    trained = load_trained(RunDirectory.read(model_path(path)), None, (), checkpoint, "cpu", request)
    return write_model(trained.run, merged_model(trained.run), to)


def merged_model(run: Run) -> nn.Module:
    """Return the model of a run as its task built it, what its adapter learned in its weights.

    Raises:
        UsageError: the adapter stores a part, and cannot be worked into the rest.
    """
    adapter = run.components["adapter"]
    if not lacking(adapter, Merges):
        with asked("the adapter", "merge what it learned"):
            model: nn.Module = adapter.merged(run.model)
        return model
    if run.base is None:
        return run.model
    raise UsageError(
        f"adapter {run.config['adapter.use']} cannot be worked into the weights of the model",
        why="it lacks what trainkit.contracts.Merges names",
        do="load the checkpoint with its adapter, in trainkit",
    )


def check_free(to: Path) -> None:
    """Raise UsageError unless a folder is new or empty."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        what = "is not empty" if to.is_dir() else "is no folder"
        raise UsageError(f"the folder for the model {what}", where=str(to), do="name a new one by --to")


def write_model(run: Run, model: nn.Module, to: Path) -> Exported:
    """Write a model into a folder that is new or empty; nothing of it is in sight before it is whole."""
    to = to.absolute()
    temporary = to.with_name(f"{TEMPORARY}{to.name}")
    model.eval()
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        discard(SYSTEM, temporary)
        temporary.mkdir()
        if lacking(run.task, Exports):
            _write_plainly(run, model, temporary)
        else:
            with asked(f"task {run.config['task.use']}", "export its model"):
                run.task.export(model, temporary)  # type: ignore[attr-defined]
            _let_read(temporary)
        SYSTEM.fsync_folder(temporary)
        SYSTEM.rename(temporary, to)
        SYSTEM.fsync_folder(to.parent)
    except OSError as error:
        raise disk_error(error, to) from error
    finally:
        discard(SYSTEM, temporary)
    files = {path.name: path.stat().st_size for path in sorted(to.iterdir()) if path.is_file()}
    return Exported(to, run.moment.step, files)


def _let_read(folder: Path) -> None:
    """Let who may read the folder read its files: some libraries write them for their owner alone."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _write_plainly(run: Run, model: nn.Module, folder: Path) -> None:
    tensorfile.write(folder / MODEL_FILE, model.state_dict())
    for name, content in base_files(run).items():
        write_file(SYSTEM, folder / name, [memoryview(content)])


def base_model(run: Run, like: nn.Module, folder: Path, expected: object) -> nn.Module:
    """Return the model of a run without its adapter.

    Args:
        run: of which the task builds it.
        like: a model that says on which device.
        folder: where the base is.
        expected: its SHA-256.
    """
    model = run.task.build_model()
    base = Base(model)
    base.load(folder, expected)
    device = next(like.parameters()).device
    return model.to(device).eval()

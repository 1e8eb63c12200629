"""What of a run's model stands in a checkpoint, and how it comes back: all of it, or what its adapter learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .base import FOLDER
from .conformity import asked
from .contracts import CheckpointFiles
from .errors import PluginError, listed, printable
from .ranks.sharding import load_sharded
from .storage import strict_json
from .storage.manifest import is_file_name
from .tasks import lacking

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .live import Run

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
OURS = (MODEL_FILE, "optimizer.safetensors", "state.safetensors", "optimizer.json", "state.json", "task.json")


def weights_file(run: Run) -> str:
    """Return the name of the file with the weights."""
    return MODEL_FILE if run.base is None else str(run.components["adapter"].weights_file)


def saved_weights(run: Run) -> Mapping[str, Tensor]:
    """Return the weights under the names of their file; writing into them changes the model."""
    if run.base is None:
        return run.model.state_dict()
    with asked("the adapter", "name its weights"):
        weights: Mapping[str, Tensor] = run.components["adapter"].weights(run.model)
    return weights


def check_whole(run: Run) -> None:
    """Raise PluginError for an adapter that stores a part and leaves something out that learns."""
    if run.base is None:
        return
    held = {tensor.data_ptr() for tensor in saved_weights(run).values()}
    if lost := [name for name, parameter in run.learnable.items() if parameter.data_ptr() not in held]:
        raise PluginError(
            f"the adapter would lose what it learns: {len(lost)} of {len(run.learnable)} parameters",
            where=listed(lost),
            why="they ask for a gradient, and are not among its `weights`",
            do="correct the adapter's `weights`, or its choice of what learns",
        )


def load_weights(run: Run, checkpoint: Checkpoint, state: Mapping[str, Any]) -> None:
    """Put the weights of a checkpoint into a run.

    Args:
        run: a composed one.
        checkpoint: of a run with the same components.
        state: of the checkpoint, as snapshot.saved_state gives it.

    Raises:
        CheckpointError: the weights are of another model, or of an adapter on another one.
    """
    if run.is_sharded:
        load_sharded(run.model.state_dict(), checkpoint.tensors(MODEL_FILE))
        return
    if run.base is None:
        checkpoint.load_into(MODEL_FILE, run.model.state_dict())
        return
    file = weights_file(run)
    if file in checkpoint.files:
        run.base.load(checkpoint.path.parent.parent / FOLDER, checkpoint.facts.get("base"))
    checkpoint.load_into(file, saved_weights(run))
    buffers = run.base.buffers()
    for name, value in state.get("buffers", {}).items():
        buffers[name].copy_(value)


def model_config(run: Run) -> dict[str, Any]:
    """Return the model's own config where it has one, as Hugging Face models do, else the task and its options."""
    config: Any = getattr(run.model, "config", None)
    if hasattr(config, "to_dict"):
        document: dict[str, Any] = config.to_dict()
        return document
    return {
        "model_type": type(run.model).__name__,
        "task": run.config["task.use"],
        "options": run.config.options("task"),
    }


def small_files(run: Run) -> dict[str, bytes]:
    """Return what stands beside the weights for other programs, by file name: config.json and what components add."""
    if run.files is None:
        adapter = run.components["adapter"]
        learned = {} if lacking(adapter, CheckpointFiles) else _files_of(run, "adapter", adapter)
        run.files = base_files(run) | learned
    return run.files


def base_files(run: Run) -> dict[str, bytes]:
    """Return the files that belong to the model without its adapter."""
    mine = {CONFIG_FILE: strict_json.dumps(model_config(run), indent=1)}
    return mine if lacking(run.task, CheckpointFiles) else mine | _files_of(run, "task", run.task)


def _files_of(run: Run, label: str, component: Any) -> dict[str, bytes]:
    with asked(f"the {label}", "give its files for checkpoints"):
        given: Mapping[str, str | bytes] = component.checkpoint_files(run.model)
    if wrong := [name for name in given if name in OURS or name == weights_file(run) or not is_file_name(name)]:
        raise PluginError(
            f"the {label} gives a checkpoint the file '{printable(str(wrong[0]))}'",
            why="that is no name of a plain file, or the name of one that is there already",
            do="correct its `checkpoint_files`",
        )
    return {name: content.encode() if isinstance(content, str) else content for name, content in given.items()}

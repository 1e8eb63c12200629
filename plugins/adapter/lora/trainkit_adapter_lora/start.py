"""An adapter in a folder, as peft or a checkpoint of trainkit left it, to begin with."""

from __future__ import annotations

import filecmp
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from trainkit import UsageError
from trainkit.base import fingerprint_of
from trainkit.errors import CheckpointError, listed, printable
from trainkit.storage import strict_json, tensorfile
from trainkit.storage.filesystem import read_file
from trainkit.storage.manifest import NAME as MANIFEST
from trainkit.storage.manifest import Manifest
from trainkit.storage.saved import verified

from .peftfiles import CONFIG_FILE, PREFIX, WEIGHTS_FILE

if TYPE_CHECKING:
    from torch import Tensor

WHERE = "adapter.start"
MAX_CONFIG_BYTES = 2**20
MOST_TOLD = 3
A = ".lora_A.weight"
# What of adapter_config.json says how matrices and layers make outputs; all else must say nothing, or is of no weight.
FORM = {"r": "r", "alpha": "lora_alpha", "rslora": "use_rslora", "dora": "use_dora"}
READ = {
    *FORM.values(),
    "peft_type",
    "base_model_name_or_path",
    "target_modules",
    "modules_to_save",
    "init_lora_weights",
}
WEIGHTLESS = {
    "task_type", "inference_mode", "revision", "auto_mapping", "peft_version", "lora_dropout", "runtime_config",
    "megatron_config", "megatron_core", "qalora_group_size", "layers_to_transform", "layers_pattern", "exclude_modules",
    "loftq_config", "eva_config", "ensure_weight_tying",
}  # fmt: skip
NOTHING: tuple[Any, ...] = (None, False, "none", [], {}, "")
# Others change the weights of the base, to which their matrices belong.
INITS = (None, True, False, "gaussian", "orthogonal", "eva")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Hold what the folder of an adapter says.

    Args:
        folder: where it is.
        form: r, alpha, rslora and dora, under the names of this adapter's options.
        modules: endings of the names of modules that learned whole.
        tensors: the weights, under peft's names.
        base: the name of the model that it was trained on; '' where nothing is said.
        fingerprint: the SHA-256 of that model's weights, where a checkpoint of trainkit says it.
    """

    folder: Path
    form: Mapping[str, Any]
    modules: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    base: str
    fingerprint: str

    @property
    def layers(self) -> list[str]:
        """Return the names of the layers beside which it has matrices."""
        return [name.removeprefix(PREFIX).removesuffix(A) for name in self.tensors if name.endswith(A)]

    def fill(self, weights: Mapping[str, Tensor]) -> None:
        """Write the weights into those of a model; raise UsageError where names or shapes differ."""
        if faults := tensorfile.misfits(self.tensors, weights, lambda tensor: str(list(tensor.shape)), MOST_TOLD):
            raise self.unfit("\n".join(faults))
        with torch.no_grad():
            for name, tensor in weights.items():
                tensor.copy_(self.tensors[name])

    def unfit(self, why: str) -> UsageError:
        """Return the error for an adapter that is for another kind of model."""
        what = "the adapter to start from does not fit the model"
        return UsageError(what, where=f"{WHERE} = {self.folder}", why=why, do="name one that was trained on this model")


def read_start(name: str) -> Start:
    """Return what a folder holds.

    Raises:
        UsageError: it is no folder of an adapter, or of one that is more than low-rank matrices.
    """
    folder = Path(name).expanduser()
    _check_folder(folder)
    fields = _fields(folder)
    try:
        manifest = Manifest.read(folder) if (folder / MANIFEST).is_file() else None
        written = None if manifest is None else manifest.files.get(WEIGHTS_FILE)
        content = None if written is None else verified(folder / WEIGHTS_FILE, *written)
        tensors = tensorfile.read(folder / WEIGHTS_FILE, content)
    except CheckpointError as error:
        raise refused(folder, error.why or error.what, "put a copy back") from error
    return Start(
        folder,
        {option: fields[field] for option, field in FORM.items()},
        tuple(fields.get("modules_to_save") or ()),
        tensors,
        str(fields.get("base_model_name_or_path") or ""),
        str(manifest.facts.get("base", "")) if manifest is not None else "",
    )


def refused(folder: Path, why: str, do: str) -> UsageError:
    """Return the error for a folder from which nothing can begin."""
    return UsageError(f"{WHERE}: no adapter can be taken from '{printable(str(folder))}'", why=why, do=do)


def _check_folder(folder: Path) -> None:
    do = f"name a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, as save_pretrained of peft writes it"
    if not folder.is_dir():
        raise refused(folder, "there is no such folder", do)
    if (folder / CONFIG_FILE).is_file() and (folder / WEIGHTS_FILE).is_file():
        return
    lacks = CONFIG_FILE if not (folder / CONFIG_FILE).is_file() else WEIGHTS_FILE
    if (folder / "checkpoints").is_dir():
        do = f"name one of its checkpoints, as {folder / 'checkpoints' / 'checkpoint-120'}"
    elif (folder / "adapter_model.bin").is_file():
        raise refused(folder, "adapter_model.bin is a pickle, which may run code", "save it as safetensors")
    raise refused(folder, f"it has no {lacks}", do)


def _fields(folder: Path) -> dict[str, Any]:
    """Return adapter_config.json, of which every part is understood or says nothing."""
    path = folder / CONFIG_FILE
    try:
        fields = strict_json.loads(read_file(path, MAX_CONFIG_BYTES))
        if not isinstance(fields, dict):
            raise ValueError("it is no table")
        fields = {"use_rslora": False, "use_dora": False, **fields}
        if lacking := [field for field in FORM.values() if field not in fields]:
            raise ValueError(f"it does not say {', '.join(lacking)}")
        fields["lora_alpha"] = float(fields["lora_alpha"])
        modules = fields.get("modules_to_save") or []
        if type(fields["r"]) is not int or fields["r"] < 1 or not all(isinstance(name, str) for name in modules):
            raise ValueError("r is no whole number, or modules_to_save no list of names")
    except (ValueError, TypeError, CheckpointError, RecursionError) as error:
        why = error.why if isinstance(error, CheckpointError) else f"{CONFIG_FILE}: {printable(str(error))}"
        raise refused(folder, why, "put a copy back") from error
    kind = fields.get("peft_type", "LORA")
    if kind != "LORA":
        raise refused(folder, f"it is of the kind {printable(str(kind))}", "name one of the kind LORA")
    strange = [field for field in sorted(fields.keys() - READ - WEIGHTLESS) if fields[field] not in NOTHING]
    if fields.get("init_lora_weights") not in INITS:
        strange.append("init_lora_weights")
    if strange:
        has = listed(f"{printable(field)} {printable(str(fields[field]))}" for field in strange)
        why = f"{CONFIG_FILE} has {has}"
        raise refused(folder, why, "merge it by peft, and name the merged model as the task's")
    return fields


def check_base(start: Start, model: nn.Module, base: str | None) -> None:
    """Raise UsageError for an adapter that was trained on another model.

    A checkpoint of trainkit knows the SHA-256 of the weights, which decides alone. Of other adapters the name of the
    model must be the same, or name a folder with the same weights.

    Args:
        start: the adapter.
        model: without an adapter.
        base: what the user says the model is called there.
    """
    if start.fingerprint:
        if (found := fingerprint_of(model)) != start.fingerprint:
            why = f"its base has the SHA-256 {start.fingerprint[:12]}..., the model of this run {found[:12]}..."
            raise _other_base(start, why, "take the base of the run in which it was trained, as task.model=RUN/base")
        return
    mine = str(getattr(getattr(model, "config", None), "name_or_path", "") or "")
    if base is not None and base != start.base:
        why = f"it names its base '{printable(start.base)}', and adapter.base is '{printable(base)}'"
        raise _other_base(start, why, "name the base as the adapter does, if the weights are the same")
    if not start.base:
        _log.warning("lora: %s does not name its base; nobody can tell whether it is this model", start.folder)
    elif base is None and start.base != mine and not _same_weights(Path(start.base), Path(mine)):
        why = (
            f"it was trained on '{printable(start.base)}', the model of this run is '{printable(mine) or 'built anew'}'"
        )
        do = f"name the same model; if the weights are the same, say so: --set adapter.base={printable(start.base)}"
        raise _other_base(start, why, do)


def _other_base(start: Start, why: str, do: str) -> UsageError:
    what = "the adapter to start from belongs to another base model"
    return UsageError(what, where=f"{WHERE} = {printable(str(start.folder))}", why=why, do=do)


def _same_weights(one: Path, other: Path) -> bool:
    """Return whether two folders are one, or hold the same files of weights."""
    folders = [path.expanduser() for path in (one, other)]
    if not all(path.is_dir() for path in folders):
        return False
    if folders[0].resolve() == folders[1].resolve():
        return True
    mine, theirs = ({path.name: path for path in folder.glob("*.safetensors")} for folder in folders)
    return (
        bool(mine)
        and mine.keys() == theirs.keys()
        and all(filecmp.cmp(mine[name], theirs[name], shallow=False) for name in mine)
    )

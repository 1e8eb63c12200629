"""The model that an adapter is put on: stored once for a run, loaded again whenever the run's adapter is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from .errors import CheckpointError, PluginError, listed
from .storage.basefolder import hash_of, load_base, recorded_hash, write_base
from .storage.filesystem import SYSTEM, FileSystem, disk_error

FOLDER = "base"
Place = tuple[nn.Module, str]


def places_of(model: nn.Module) -> dict[str, Place]:
    """Return where each tensor of a model's state lives, module and attribute, by its name there.

    An adapter that puts layers around others changes names, and a move to another device the tensors; modules stay.

    Raises:
        PluginError: the model's state holds what is no parameter and no buffer.
    """
    found: dict[str, Place] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for key in (*module._parameters, *module._buffers):
            found[f"{prefix}.{key}" if prefix else key] = (module, key)
    names = list(model.state_dict(keep_vars=True))
    if strange := [name for name in names if name not in found]:
        raise PluginError(
            "this model's weights cannot be stored apart from an adapter's",
            why=f"its state_dict holds what is neither a parameter nor a buffer: {listed(strange)}",
            do="take an adapter that stores the whole model, as --adapter full",
        )
    return {name: found[name] for name in names}


def fingerprint_of(model: nn.Module) -> str:
    """Return the SHA-256 that the folder of a model would have which an adapter is put on now."""
    return hash_of(Base(model).weights())


class Base:
    """Know the weights of a model as it was before its adapter, under the names that they had then.

    Args:
        model: without the adapter.
        files: the file system.
    """

    def __init__(self, model: nn.Module, files: FileSystem = SYSTEM) -> None:
        self.files = files
        self._places = places_of(model)
        self._fingerprint = ""
        self._writer: threading.Thread | None = None
        self._failure: BaseException | None = None

    def weights(self) -> dict[str, Tensor]:
        """Return the weights as they are now."""
        return {name: getattr(module, key) for name, (module, key) in self._places.items()}

    def buffers(self) -> dict[str, Tensor]:
        """Return those of the weights that are no parameters, as running averages: training changes them."""
        return {name: tensor for name, tensor in self.weights().items() if not isinstance(tensor, nn.Parameter)}

    def keep(self, folder: Path, documents: Callable[[], Mapping[str, bytes]]) -> None:
        """Store the weights in a folder, from a thread; where it is there already, load them from it.

        Args:
            folder: of the run.
            documents: returns the files that belong to the model, by name.
        """
        if folder.is_dir():
            self.load(folder, recorded_hash(folder))
            return
        arguments = (folder, _held(self.weights()), dict(documents()))
        self._writer = threading.Thread(target=self._write, args=arguments, name="base-writer")
        self._writer.start()

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the stored weights, '' where none are; wait until they are durable.

        Raises:
            ResourceError: the disk is full, read-only or broken.
        """
        self.close()
        if self._failure is not None:
            raise self._failure
        return self._fingerprint

    def close(self) -> None:
        """Wait for the writer."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def load(self, folder: Path, expected: object) -> None:
        """Load the weights that a checkpoint's adapter belongs to, unless they are in place.

        Args:
            folder: of the run.
            expected: the SHA-256 that the checkpoint names.

        Raises:
            CheckpointError: the folder is damaged, or holds another model.
        """
        if expected and self._fingerprint == expected:
            return
        found = recorded_hash(folder)
        if found != expected:
            raise CheckpointError(
                "this adapter belongs to another base model",
                where=str(folder),
                why=f"it was trained on the base with SHA-256 {_start(expected)}, this is {_start(found)}",
                do="load it in the run directory in which it was trained",
            )
        self._fingerprint = load_base(folder, self.weights())

    def _write(self, folder: Path, held: Mapping[str, Tensor], documents: Mapping[str, bytes]) -> None:
        try:
            self._fingerprint = write_base(folder, held, documents, self.files)
        except OSError as error:
            self._failure = disk_error(error, folder, self.files)
        except BaseException as error:  # raised by whoever asks for the fingerprint
            self._failure = error


def _held(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with copies of those that change while they are written; tied ones stay tied."""
    copies = {
        id(tensor): tensor.detach().clone()
        for tensor in weights.values()
        if tensor.requires_grad or not isinstance(tensor, nn.Parameter)
    }
    return {name: copies.get(id(tensor), tensor.detach()) for name, tensor in weights.items()}


def _start(fingerprint: object) -> str:
    return f"{str(fingerprint)[:12]}..." if fingerprint else "unknown"

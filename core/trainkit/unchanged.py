"""Working on a run and leaving it as it was, to the bit: kept before, put back after, compared by hashes."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from .best import Best
from .blame import label_of
from .costs.forecast import Forecast
from .errors import PluginError
from .record import Gathered, InactiveTerms
from .snapshot import stateful
from .storage import strict_json
from .storage.statetree import flatten

if TYPE_CHECKING:
    from .live import Run


@contextlib.contextmanager
def unchanged(run: Run) -> Iterator[None]:
    """Put a run back as it was when the block ends, however it ends.

    That is the model with its buffers and modes, the loss, the optimizer, the scheduler, the gradient scaler, the
    states of components, the moment, what was gathered, and the generators of PyTorch, NumPy and Python. Weights are
    kept in the computer's memory, not on the device.

    Raises:
        PluginError: a component's state differs after it was put back.
    """
    before = fingerprints(run)
    keep = contextlib.ExitStack()
    for held in (_counters, _random_numbers, _states, _modules):
        keep.enter_context(held(run))
    with keep:
        yield
    after = fingerprints(run)
    changed = [label_of(run, label) for label in before if before[label] != after.get(label)]
    if changed:
        raise PluginError(
            f"{', '.join(changed)} cannot be put back as it was",
            why="the state that load_state_dict was given is not the one that state_dict answers with afterwards",
            do="correct the component: all that changes during training belongs into its state_dict",
        )


def fingerprints(run: Run) -> dict[str, str]:
    """Return a hash of each part of a run that training changes, by the part's name."""
    values: dict[str, Any] = {
        "model": _tensors_of(run.model),
        "loss": _tensors_of(run.loss),
        "optimizer": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict() if run.scheduler is not None else None,
        "scaler": run.scaler.state_dict() if run.scaler is not None else None,
        "moment": run.moment.state_dict(),
        "gathered": run.gathered.state_dict(),
        "generators": _generators(),
        "task": run.task.state_dict(),
    }
    values |= {f"{label} state": part.state_dict() for label, part in stateful(run).items()}
    return {label: _hash(value) for label, value in values.items()}


def _hash(state: Any) -> str:
    document, tensors = flatten(state)
    hashed = xxhash.xxh3_128(strict_json.dumps(strict_json.without_special_numbers(document)))
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous().flatten()
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(flat.view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def _tensors_of(module: nn.Module) -> dict[str, Any]:
    """Return parameters, with whether they learn, and all buffers: those that no state_dict holds, too."""
    learning = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    modes = {name: part.training for name, part in module.named_modules()}
    return {
        "parameters": dict(module.named_parameters()),
        "buffers": dict(module.named_buffers()),
        "learning": learning,
        "modes": modes,
    }


def _generators() -> dict[str, Any]:
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": np.random.get_state(),  # noqa: NPY002 - not used: put back, in case a component uses it
        "python": random.getstate(),
    }


@contextlib.contextmanager
def _random_numbers(run: Run) -> Iterator[None]:
    kept = _generators()
    try:
        yield
    finally:
        torch.set_rng_state(kept["torch"])
        if kept["cuda"]:
            torch.cuda.set_rng_state_all(kept["cuda"])
        np.random.set_state(kept["numpy"])  # noqa: NPY002
        random.setstate(kept["python"])


@contextlib.contextmanager
def _counters(run: Run) -> Iterator[None]:
    """Let a run count anew, and take up its own counts afterwards."""
    names = ("gathered", "inactive", "forecast", "best", "batch", "scheduler", "events", "stop_reason", "stage_reasons")
    kept, moment = {name: getattr(run, name) for name in names}, run.moment.state_dict()
    run.gathered, run.inactive, run.forecast = Gathered(), InactiveTerms(), Forecast()
    run.best, run.stage_reasons = Best(), []
    try:
        yield
    finally:
        run.moment.load_state_dict(moment)
        for name, value in kept.items():
            setattr(run, name, value)


@contextlib.contextmanager
def _states(run: Run) -> Iterator[None]:
    """Keep the state of all that has one; the optimizer's after the weights, which it may have moved."""
    parts: list[Any] = [*stateful(run).values(), run.optimizer]
    parts += [part for part in (run.scheduler, run.scaler) if part is not None]
    kept = [copy.deepcopy(part.state_dict()) for part in parts]
    try:
        yield
    finally:
        for part, state in zip(parts, kept, strict=True):
            part.load_state_dict(state)


@contextlib.contextmanager
def _modules(run: Run) -> Iterator[None]:
    """Keep parameters, gradients, buffers and modes of model and loss."""
    kept = [_KeptModule(part) for module in (run.model, run.loss) for part in module.modules()]
    try:
        yield
    finally:
        with torch.no_grad():
            for part in kept:
                part.put_back()


class _KeptModule:
    """Keep what belongs to one module itself, not to those inside it."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.training = module, module.training
        self.parameters = {name: _kept(p) for name, p in module.named_parameters(recurse=False)}
        self.gradients = {name: _kept(p.grad) for name, p in module.named_parameters(recurse=False)}
        self.learning = {name: p.requires_grad for name, p in module.named_parameters(recurse=False)}
        self.buffers = {name: _kept(buffer) for name, buffer in module._buffers.items()}

    def put_back(self) -> None:
        self.module.training = self.training
        for name, parameter in self.module.named_parameters(recurse=False):
            parameter.requires_grad_(self.learning[name])
            _fill(parameter, self.parameters[name])
            parameter.grad = _filled(self.gradients[name])
        for name, kept in self.buffers.items():
            # A buffer may have been replaced by another tensor; who holds the first one must see it filled again.
            self.module._buffers[name] = _filled(kept)


_Kept = tuple[Tensor, Tensor]


def _kept(tensor: Tensor | None) -> _Kept | None:
    return None if tensor is None else (tensor, tensor.detach().to("cpu", copy=True))


def _filled(kept: _Kept | None) -> Tensor | None:
    if kept is None:
        return None
    _fill(kept[0], kept)
    return kept[0]


def _fill(tensor: Tensor, kept: _Kept | None) -> None:
    if kept is not None:
        tensor.copy_(kept[1])

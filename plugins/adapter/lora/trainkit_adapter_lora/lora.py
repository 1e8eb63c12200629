"""The adapter `lora`: low-rank matrices beside linear layers learn, the model itself stays as it is."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn
from trainkit import UsageError, hookimpl
from trainkit.errors import listed
from trainkit.tomltext import show

from .layer import LoRALinear, scaling_of
from .peftfiles import CONFIG_FILE, WEIGHTS_FILE, config_text, named_weights
from .start import FORM, WHERE, Start, check_base, read_start
from .targets import chosen_layers, endings_of, ends_with, linear_layers

if TYPE_CHECKING:
    from torch import Tensor

DEFAULTS: Mapping[str, Any] = {"r": 16, "alpha": 32.0, "rslora": False, "dora": False}

_log = logging.getLogger(__name__)


class LoRA:
    """Learn a low-rank change of linear layers: W x + s B A dropout(x), of which A and B learn and W stays.

    A begins as a uniform Kaiming draw and B as zero, so the adapted model begins as the model. A checkpoint holds the
    matrices alone, in the files of peft (`adapter_model.safetensors`, `adapter_config.json`), and the run directory the
    model once, in `base/`. The summary of a run tells how many parameters learned, and every layer whose B is still
    zero, which is the sign of an adapter that learned nothing.

    No gradient is computed below the first adapted layer, nor for a weight that stays; it is computed for what flows
    through the layers above. Dropout of frozen layers stays on, as in training without an adapter.

    With `start` it begins as another adapter ended, and rank, strength and layers are those of that one.

    Args:
        r: rank of the change; 16, or that of `start`.
        alpha: its strength, s is alpha / r; 32, or that of `start`.
        dropout: share of the inputs of A that is dropped.
        targets: endings of the names of the linear layers, as q and v, or patterns, as decoder.*.q; if not given, those
            of query and value in attention, where these have no known names all linear layers of attention, without
            attention all.
        modules_to_save: endings of the names of modules that learn whole, as a head that is new.
        rslora: take s = alpha / sqrt(r), for larger ranks; no, or as `start` does.
        dora: learn the lengths of the rows of W besides; no, or as `start` does.
        start: folder of an adapter to begin with, of peft or a checkpoint of trainkit.
        base: name of the base in the files of `start`, where the same weights are called otherwise here.

    Source: Hu et al. 2021, arXiv 2106.09685 [paper]; rsLoRA arXiv 2312.03732 [paper]; DoRA arXiv 2402.09353 [paper].
    """

    weights_file = WEIGHTS_FILE

    def __init__(
        self,
        r: PositiveInt | None = None,
        alpha: PositiveFloat | None = None,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        targets: tuple[str, ...] = (),
        modules_to_save: tuple[str, ...] = (),
        rslora: bool | None = None,
        dora: bool | None = None,
        start: str | None = None,
        base: str | None = None,
    ) -> None:
        self.given = {"r": r, "alpha": alpha, "rslora": rslora, "dora": dora}
        self.dropout, self.start, self.base = dropout, start, base
        self.targets, self.modules_to_save = tuple(targets), tuple(modules_to_save)
        self._take(DEFAULTS)
        self._settled: dict[str, Any] = {}
        self._layers: dict[str, LoRALinear] = {}
        self._modules: dict[str, nn.Module] = {}
        self._parameters = 0

    def _take(self, form: Mapping[str, Any]) -> None:
        """Take a form, but for what was given."""
        taken = {name: form[name] if value is None else value for name, value in self.given.items()}
        self.r, self.alpha, self.rslora, self.dora = (taken[name] for name in FORM)

    def __call__(self, model: nn.Module) -> nn.Module:
        """Return the model itself, its chosen layers replaced, nothing else learning."""
        if any(isinstance(module, LoRALinear) for module in model.modules()):
            raise UsageError("this model has an adapter of lora already", do="give it a model without one")
        start = None if self.start is None else read_start(self.start)
        if start is not None:
            check_base(start, model, self.base)
            self._agree(start)
        self._parameters = sum(parameter.numel() for parameter in model.parameters())
        self._modules = self._whole(model)
        chosen = chosen_layers(model, self.targets) if start is None else started_layers(model, start, self.targets)
        inside = tuple(f"{name}." for name in self._modules)
        chosen = {n: layer for n, layer in chosen.items() if n not in self._modules and not n.startswith(inside)}
        model.requires_grad_(False)
        scaling = scaling_of(self.alpha, self.r, rslora=self.rslora)
        self._layers = {}
        for name, linear in chosen.items():
            layer = LoRALinear(linear, self.r, scaling, self.dropout, dora=self.dora).train(linear.training)
            _put(model, name, layer)
            self._layers[name] = layer
        for module in self._modules.values():
            for parameter in module.parameters():
                parameter.requires_grad_(parameter.is_floating_point())
        if start is not None:
            start.fill(self.weights(model))
            targets = endings_of(model, list(self._layers))
            self._settled = {**start.form, "targets": targets, "modules_to_save": list(self.modules_to_save)}
        return model

    def _agree(self, start: Start) -> None:
        """Take the form of an adapter to start from; raise UsageError where something else was asked for."""
        given: dict[str, Any] = {**self.given, "modules_to_save": self.modules_to_save or None}
        for name, theirs in {**start.form, "modules_to_save": start.modules}.items():
            if given[name] is not None and given[name] != theirs:
                raise differs(name, given[name], theirs, start)
        self.modules_to_save = start.modules
        self._take(start.form)

    def settled(self) -> dict[str, Any]:
        """Return the options that followed from `start`: with these, and without it, the same layers are made."""
        return self._settled

    def _whole(self, model: nn.Module) -> dict[str, nn.Module]:
        found = {}
        for ending in self.modules_to_save:
            matching = {name: module for name, module in model.named_modules() if name and ends_with(name, ending)}
            if not matching:
                parts = ", ".join(name for name, _ in model.named_children())
                raise UsageError(
                    f"no module of the model is named '{ending}'",
                    where="adapter.modules_to_save",
                    why=f"top-level parts of the model: {parts}",
                )
            found |= matching
        return found

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the matrices, and the modules that learn whole, under peft's names."""
        return named_weights(layers_of(model), self._modules)

    def checkpoint_files(self, model: nn.Module) -> dict[str, str]:
        """Return adapter_config.json."""
        text = config_text(
            model,
            endings_of(model, list(layers_of(model))),
            self.modules_to_save,
            self.r,
            self.alpha,
            self.dropout,
            rslora=self.rslora,
            dora=self.dora,
        )
        return {CONFIG_FILE: text}

    def merged(self, model: nn.Module) -> nn.Module:
        """Return the model with its own layers again, what was learned added to their weights."""
        for name, layer in layers_of(model).items():
            _put(model, name, layer.merge().train(layer.training))
        return model

    @hookimpl
    def on_run_end(self, status: str) -> None:
        """Warn of adapters that learned nothing."""
        unlearned = self._unlearned() if status == "done" else []
        if unlearned:
            _log.warning(
                "lora: %d of %d adapters learned nothing, as %s: their B is still zero; "
                "does the loss depend on them, and are there steps enough?",
                len(unlearned),
                len(self._layers),
                unlearned[0],
            )

    def _unlearned(self) -> list[str]:
        return [name for name, layer in self._layers.items() if not bool(torch.any(layer.lora_B != 0))]

    def summary(self) -> Mapping[str, Any]:
        """Return how many parameters learned, beside which layers, and which of them did not change."""
        learning = [p for layer in self._layers.values() for p in (layer.lora_A, layer.lora_B, layer.magnitude)]
        count = sum(parameter.numel() for parameter in learning if parameter is not None)
        whole = sum(p.numel() for module in self._modules.values() for p in module.parameters())
        return {
            "trainable_parameters": count + whole,
            "share": round((count + whole) / max(1, self._parameters + count), 6),
            "base_parameters": self._parameters,
            "layers": len(self._layers),
            "targets": list(dict.fromkeys(name.rpartition(".")[2] for name in self._layers)),
            "modules_to_save": list(self._modules),
            "unlearned": self._unlearned(),
        }


def started_layers(model: nn.Module, start: Start, targets: Sequence[str]) -> dict[str, nn.Linear]:
    """Return the layers of a model beside which an adapter has matrices.

    Args:
        model: without an adapter.
        start: the adapter.
        targets: those that were asked for; they must mean the same layers.

    Raises:
        UsageError: the model has no such linear layers, or others were asked for.
    """
    layers = linear_layers(model)
    if unknown := [name for name in start.layers if name not in layers]:
        raise start.unfit(f"the model has no linear layer {listed(unknown)}")
    if targets and set(chosen_layers(model, targets)) != set(start.layers):
        raise differs("targets", list(targets), start.layers, start)
    return {name: layers[name] for name in start.layers}


def differs(option: str, mine: Any, theirs: Any, start: Start) -> UsageError:
    """Return the error for an option that says otherwise than the adapter to start from."""
    if isinstance(theirs, list | tuple):
        has = listed(theirs, 4) or "nothing"
    else:
        has = show(theirs)
    return UsageError(
        f"adapter.{option} is {show(mine)}, the adapter to start from has {has}",
        where=f"{WHERE} = {start.folder}",
        do=f"leave adapter.{option} out, or {WHERE}",
    )


def layers_of(model: nn.Module) -> dict[str, LoRALinear]:
    """Return the adapted layers of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace a module inside of another one."""
    parent, _, key = name.rpartition(".")
    setattr(model.get_submodule(parent), key, module)

"""Which linear layers of a model get matrices beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from trainkit import UsageError

# The names that the layers of query and value have in T5, in Llama and its kin, and in BERT and ViT.
FAMILIES = (("q", "v"), ("q_proj", "v_proj"), ("query", "value"))


def ends_with(name: str, ending: str) -> bool:
    """Return whether a dotted name ends with these parts: q of encoder.block.0.q, not of encoder.freq."""
    return name == ending or name.endswith(f".{ending}")


def is_meant(name: str, target: str) -> bool:
    """Return whether a target means a layer: as the ending of its name, or as a pattern for the whole of it.

    A pattern is what has one of the signs * ? [ in it, as decoder.*.q, and is matched as those of a stage are.
    """
    return fnmatchcase(name, target) if any(sign in target for sign in "*?[") else ends_with(name, target)


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers by name.

    A layer whose weight is that of another one, as of an embedding, cannot get a weight of its own, nor can one that
    stands in several places.
    """
    shared = _shared_weights(model)
    names = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    return {
        name: module
        for name, module in model.named_modules()
        if name
        and isinstance(module, nn.Linear)
        and type(module).forward is nn.Linear.forward
        and names[id(module)] == 1
        and id(module.weight) not in shared
    }


def _shared_weights(model: nn.Module) -> set[int]:
    """Return the parameters that more than one module has."""
    seen: set[int] = set()
    shared: set[int] = set()
    for module in model.modules():
        own = {id(parameter) for parameter in module._parameters.values() if parameter is not None}
        shared |= own & seen
        seen |= own
    return shared


def chosen_layers(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Linear]:
    """Return the layers that the targets mean; without any, those of query and value in attention.

    Where these have no names that are known, all linear layers inside of modules that are called an attention are
    taken, and in a model without one all linear layers.

    Raises:
        UsageError: a target is the name of no linear layer, or there is no linear layer.
    """
    layers = linear_layers(model)
    if targets:
        return _named(layers, targets)
    for family in FAMILIES:
        found = {name: layer for name, layer in layers.items() if any(ends_with(name, end) for end in family)}
        if {name.rpartition(".")[2] for name in found} == set(family):
            return found
    inside = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if "attention" in type(module).__name__.lower()
        for name, _ in module.named_modules()
    }
    found = {name: layer for name, layer in layers.items() if name in inside} or layers
    if not found:
        raise UsageError(
            "lora finds no linear layer in this model",
            where="adapter.use",
            do="take another adapter, as --adapter full",
        )
    return found


def _named(layers: dict[str, nn.Linear], targets: Sequence[str]) -> dict[str, nn.Linear]:
    for target in targets:
        if not any(is_meant(name, target) for name in layers):
            endings = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in layers)) or "none"
            first = f"; the first of them is {next(iter(layers))}" if layers else ""
            raise UsageError(
                f"no linear layer of the model is named '{target}'",
                where="adapter.targets",
                why=f"linear layers end with: {endings}{first}",
                do="name some of these, or leave adapter.targets out",
            )
    return {name: layer for name, layer in layers.items() if any(is_meant(name, target) for target in targets)}


def endings_of(model: nn.Module, chosen: Sequence[str]) -> list[str]:
    """Return the shortest names that say which modules are meant: their last parts, where no other module has them."""
    endings = list(dict.fromkeys(name.rpartition(".")[2] for name in chosen))
    meant = {name for name, _ in model.named_modules() if any(ends_with(name, ending) for ending in endings)}
    return sorted(endings if meant == set(chosen) else chosen)

"""States of components on several ranks: kept once where all ranks agree, and for each rank what it has of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from trainkit.checkpoint import Checkpoint
from trainkit.storage.statetree import flatten, unflatten

from .world import World

_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def own_states(world: World, states: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return for every rank, by label, the states in which it differs from rank 0; [] where none does.

    Args:
        world: which rank this is.
        states: what components of the same labels keep on each rank, as `flatten` takes it.
    """
    if world.is_alone:
        return []
    digests = world.everyones({label: digest(state) for label, state in states.items()})
    different = [label for label in states if digests[world.rank].get(label) != digests[0].get(label)]
    if all(found == digests[0] for found in digests):
        return []
    return [unpacked(content) for content in world.everyones_bytes(packed({k: states[k] for k in different}))]


def digest(state: Any) -> str:
    """Return a digest of nested state: two that differ have, but for rare chance, two digests."""
    document, tensors = flatten(state)
    sums = [int(_bits(tensor).sum(dtype=torch.int64)) for tensor in tensors.values()]
    return hashlib.blake2b(json.dumps([document, sums], sort_keys=True).encode(), digest_size=12).hexdigest()


def packed(state: Any) -> bytes:
    """Return nested state as bytes: the length of a JSON document, the document, and tensors as safetensors."""
    document, tensors = flatten(state)
    head = json.dumps(document).encode()
    body = save({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()})
    return len(head).to_bytes(8, "little") + head + body


def unpacked(content: bytes) -> Any:
    """Return the state that `packed` packed."""
    length = int.from_bytes(content[:8], "little")
    return unflatten(json.loads(content[8 : 8 + length]), load(content[8 + length :]))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return the elements of a tensor as whole numbers of the same bits."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.contiguous().view(_WHOLE[tensor.element_size()])


def state_of_rank(world: World, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the components' states for this rank, from a checkpoint's state.

    On another number of ranks than those that made it each gets those of rank 0.
    """
    own = state.get("ranks") or []
    mine = own[world.rank] if len(own) == world.size else {}
    return {**state["components"], **mine}


def same_checkpoint(world: World, found: Checkpoint | None) -> Checkpoint | None:
    """Return the checkpoint that rank 0 has found, on every rank: each reads it from the folder that they share."""
    path = world.firsts(None if found is None else str(Path(found.path).absolute()))
    return found if world.is_first or path is None else Checkpoint(Path(path))

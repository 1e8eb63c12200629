"""A model whose weights are cut into shards, one for each rank, by PyTorch's FSDP2: whole again where that is needed.

Weights are cut along their first dimension, in groups: each block of the model is one, what is in no block another. In
a forward pass a group is gathered when its turn comes and given back afterwards. Everything that leaves the ranks, as
a checkpoint, holds whole tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainkit.contracts import LossOutput
from trainkit.errors import UsageError

if TYPE_CHECKING:
    from trainkit.live import Run

    from .world import World

DO = "leave one of the two out: --set parallel=ddp keeps the weights whole on each device"


def excluded(what: str, where: str, why: str = "") -> UsageError:
    """Build the answer to what does not work where each rank holds a shard of the weights."""
    return UsageError(f"{what} and parallel fsdp exclude each other", where=where, why=why, do=DO)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of a model: the children with weights of its outermost lists of modules."""
    found: list[nn.Module] = []
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            found += [block for block in child if any(True for _ in block.parameters())]
        else:
            found += blocks_of(child)
    return found


def shard(model: nn.Module, device: torch.device, world: World) -> None:
    """Cut the weights of a model, which is whole and the same on each rank, into shards, in place."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(device.type, (world.size,))
    for part in [*blocks_of(model), model]:
        fully_shard(part, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Sums, not means: the loop divides by the counts of all ranks.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def is_sharded(tensor: Any) -> bool:
    """Return whether a tensor is spread over ranks."""
    return hasattr(tensor, "full_tensor")


def own_part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this rank holds: writing into it changes the tensor."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def whole(state: Any) -> Any:
    """Return nested state with whole tensors in place of sharded ones; all ranks take part, and all have the answer."""
    if isinstance(state, Tensor):
        return state.full_tensor() if is_sharded(state) else state  # type: ignore[attr-defined]
    if isinstance(state, Mapping):
        return {key: whole(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(whole(value) for value in state)
    return state


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return this rank's shard of a whole tensor, cut as a parameter of its shape is; itself where that is not cut."""
    if not is_sharded(parameter) or is_sharded(tensor) or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    placed = tensor.to(parameter.device)
    return distribute_tensor(placed, parameter.device_mesh, parameter.placements, src_data_rank=None)  # type: ignore[attr-defined]


def by_name(state: Any, parameters: Mapping[str, Tensor]) -> Any:
    """Return nested state in which a whole tensor under the name of a parameter, of its shape, is cut as that is."""
    if not isinstance(state, Mapping):
        return state
    return {
        key: like(value, parameters[key])
        if isinstance(value, Tensor) and key in parameters
        else by_name(value, parameters)
        for key, value in state.items()
    }


def cut_names(optimizer: Mapping[str, Any]) -> dict[int, list[str]]:
    """Return which tensors of an optimizer's state are sharded, by the place of their parameter."""
    return {place: [name for name, v in own.items() if is_sharded(v)] for place, own in optimizer["state"].items()}


def optimizer_state(run: Run, state: dict[str, Any], cut: Mapping[int, list[str]] | None) -> dict[str, Any]:
    """Return a whole optimizer state with what was cut when it was saved cut again, as its parameter is.

    Of a state that was saved without shards, whatever has the shape of a sharded parameter is cut.
    """
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    found = {
        place: {
            name: like(value, parameters[place])
            if isinstance(value, Tensor) and (cut is None or name in cut.get(place, ()))
            else value
            for name, value in own.items()
        }
        for place, own in state["state"].items()
    }
    return {**state, "state": found}


def load_sharded(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Overwrite weights, of which some are sharded, with whole ones of the same names."""
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(like(tensors[name], target))


def nothing_of(loss: LossOutput) -> LossOutput:
    """Return a loss of which nothing is learned, with a backward pass: all ranks have one, or none has."""
    return LossOutput(loss.sum * 0, 0)


def idle_pass(run: Run) -> LossOutput | None:
    """Run the model for the other ranks where this one has no sample of a batch; None where weights are not sharded."""
    if not run.is_sharded:
        return None
    batch = run.engine.place(run.batch_maker()(0, torch.zeros(1, dtype=torch.long)))
    return nothing_of(run.forward(batch)[1])


@contextlib.contextmanager
def gathered(run: Run) -> Iterator[None]:
    """Keep whole weights on each rank within the block, so that each runs the model as often as it has samples."""
    from torch.distributed.fsdp import FSDPModule

    parts = [module for module in run.model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(part is not run.model, recurse=False)


def check_shardable(run: Run) -> None:
    """Refuse what does not work on shards: a scaled loss, and adapters that store a part of the weights."""
    if run.scaler is not None:
        raise excluded("precision fp16", "precision", "each rank would scale its losses by itself")
    if run.base is not None:
        name = run.config["adapter.use"]
        raise excluded(f"adapter {name}", "adapter", "it stores a part of the weights, which is not done of shards yet")

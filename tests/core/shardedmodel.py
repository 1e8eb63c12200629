"""One rank of two that shard a model by FSDP2 and step it; a script, because each rank is a process of its own.

Usage: shardedmodel.py RANK STORE OUT NAME... Rank 0 writes the whole weights that each optimizer comes to to OUT.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.distributed.fsdp import fully_shard
from trainkit.registry import Registry

STEPS = 3
RATE = 0.01
# From its own first estimate it would not come far enough in so few steps to show a difference.
OPTIONS = {"prodigy": {"d0": 0.1}}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4))


def train(net: nn.Module, name: str) -> None:
    component = Registry().load("optimizer", name)
    optimizer = component.build(
        component.validate({"lr": RATE, **OPTIONS.get(name, {})}), params=list(net.named_parameters())
    )
    if hasattr(optimizer, "train"):
        optimizer.train()
    for step in range(STEPS):
        inputs = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(inputs).square().mean().backward()
        optimizer.step()


def main(rank: int, store: str, out: str, names: list[str]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = dist.init_device_mesh("cpu", (2,))
    weights = {}
    for name in names:
        net = fully_shard(model(), mesh=mesh)
        train(net, name)
        weights |= {f"{name} {key}": value.full_tensor() for key, value in net.state_dict().items()}
    if rank == 0:
        save_file(weights, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])

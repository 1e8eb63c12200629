"""Under FSDP2 an optimizer moves the weights as on one rank: norms are those of whole tensors, not of shards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed
from safetensors.torch import load_file

from .shardedmodel import model, train

SCRIPT = Path(__file__).with_name("shardedmodel.py")
NAMES = [
    *("adamw", "lion", "lamb", "adan", "gpro", "sgd"),
    *("adafactor", "muon", "soap", "sophia", "schedule-free-adamw", "prodigy"),
]


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo")
def test_two_ranks_move_the_weights_as_one_does(tmp_path):
    ranks = [
        subprocess.Popen([sys.executable, SCRIPT, str(rank), tmp_path / "store", tmp_path / "out", *NAMES])
        for rank in (0, 1)
    ]
    assert [rank.wait(timeout=150) for rank in ranks] == [0, 0]
    sharded = load_file(tmp_path / "out")
    for name in NAMES:
        net = model()
        train(net, name)
        for key, value in net.state_dict().items():
            difference = (sharded[f"{name} {key}"] - value).abs().max()
            assert difference <= 1e-5 * value.abs().max(), f"{name}: {key} is off by {difference}"

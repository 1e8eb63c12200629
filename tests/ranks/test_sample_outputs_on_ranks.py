"""The first rank answers samples and prompts; ranks that hold a shard of the weights hand it over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trainkit.api import start
from trainkit.testing.tinytext import TinyText

from .tworanks import on_ranks, request

pytestmark = [
    pytest.mark.xdist_group("ranks"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo"),
    # PyTorch warns of blocks that answer with a view, for those who change it in place.
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module"),
]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a run's newest checkpoint."""
    newest = max((run / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return load_file(newest / "model.safetensors")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_ranks_with_and_without_shards_answer_and_come_to_the_same(tmp_path: Path, parallel: str) -> None:
    def work(name: str, *callbacks: str) -> str:
        settings = {"out": str(tmp_path / name), "parallel": parallel, "loop.epochs": 2, "optimizer.use": "adamw"}
        task = TinyText(samples=21, dropout=0.0)
        return start(request({**settings, "callback": ["no:tensorboard", *callbacks]}, task=task)).status

    shown = on_ranks(lambda: work("shown", "sample-outputs"))
    plain = on_ranks(lambda: work("plain"))
    assert shown == plain == ["done", "done"]
    one, other = (weights(tmp_path / name) for name in ("shown", "plain"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    folder = tmp_path / "shown" / "samples"
    assert len(list(folder.glob("step-*/prompt-1.txt"))) == 2
    assert (folder / "final" / "prompt-1.txt").read_text().startswith("input: cab\n\nanswer: ")

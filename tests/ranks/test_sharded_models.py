"""Weights that are cut into shards, one for each rank, come to what whole ones come to; checkpoints hold them whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trainkit.api import resume, start
from trainkit.config import layer_of
from trainkit.ranks.sharding import blocks_of, is_sharded
from trainkit.storage.tensorfile import read
from trainkit.testing.resuming import StopAt
from trainkit.testing.tiny import TinyTask

from .tworanks import on_ranks, request

pytestmark = [
    pytest.mark.xdist_group("ranks"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo"),
    # PyTorch warns of blocks that answer with a view, for those who change it in place.
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module"),
]


class Deep(nn.Module):
    """Embed, three blocks, classify; widths that two ranks cannot cut evenly."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(13, 9)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(9, 7), nn.GELU(), nn.Linear(7, 9)) for _ in range(3))
        self.head = nn.Linear(9, 13)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        hidden = self.embedding(tokens)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return {"logits": self.head(hidden)}


class DeepTask(TinyTask):
    """The tiny task with a model of blocks, whose predictions run a part of it without its forward."""

    def build_model(self) -> nn.Module:
        return Deep()

    def predict(self, model: Any, batch: Any, outputs: Any) -> dict[str, Any]:
        assert model.head.weight.shape == (13, 9)
        return {"predictions": model.head(model.embedding(batch["tokens"])).argmax(-1)}


def asked(out: Path, callbacks: Any = (), **settings: Any) -> Any:
    usual = {"out": str(out), "parallel": "fsdp", "optimizer.use": "adamw", "optimizer.lr": 1e-3, "loop.epochs": 3}
    return request({**usual, "metric": ["token-accuracy"], **settings}, task=DeepTask(samples=21), callbacks=callbacks)


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """Import once what each rank would import anew: a fork has it."""
    import torch._dynamo
    import torch.distributed.fsdp  # noqa: F401


def learned(wanted: Any) -> dict[str, Any]:
    """Return what a run came to, and how many weights a rank held."""
    result = start(wanted)
    held = sum(p.to_local().numel() if is_sharded(p) else p.numel() for p in result.model.parameters())
    return {
        "steps": result.summary["steps"],
        "held": held,
        "code": int(result.exit_code),
        "results": result.summary["results"],
    }


def weights_of(out: Path, step: int = 15) -> dict[str, Tensor]:
    """Return the weights and the state of the optimizer in a checkpoint: whole, whoever wrote it."""
    folder = out / "checkpoints" / f"checkpoint-{step}"
    return {**read(folder / "model.safetensors"), **read(folder / "optimizer.safetensors")}


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest difference between two sets of tensors."""
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in other.items()}
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_blocks_are_found_by_structure():
    model = Deep()
    assert blocks_of(model) == list(model.blocks)
    nested = nn.ModuleDict({"encoder": Deep(), "other": nn.Linear(2, 2)})
    assert blocks_of(nested) == list(nested["encoder"].blocks)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loop.accumulate": 2, "optimizer.use": "sgd", "optimizer.lr": 0.05},
        {"optimizer.use": "lamb", "loop.clip": 0.05},
        {"optimizer.use": "gpro"},
        {"callback": ["no:tensorboard", "ema", "gradient-noise"], "callback.ema.decay": 0.9},
    ],
    ids=["adamw", "accumulated", "lamb clipped", "gpro", "ema and noise"],
)
def test_two_ranks_with_shards_come_to_the_weights_of_one(tmp_path, settings):
    alone = learned(asked(tmp_path / "alone", **settings))
    found = on_ranks(lambda: learned(asked(tmp_path / "ranks", **settings)))
    assert [rank.get("text") for rank in found] == [None, None]
    step = alone["steps"]
    assert furthest(weights_of(tmp_path / "alone", step), weights_of(tmp_path / "ranks", step)) < 1e-5
    assert all(rank["held"] < 0.7 * alone["held"] for rank in found)
    for tag, value in alone["results"]["model"].items():
        assert found[0]["results"]["model"][tag] == pytest.approx(value, rel=1e-4), tag


@pytest.mark.parametrize(("after", "optimizer"), [(2, "adamw"), (2, "muon"), (1, "adamw")])
def test_a_run_with_shards_goes_on_from_whole_weights(tmp_path, after, optimizer):
    """Muon keeps whole matrices on each rank, beside the shards of what it leaves to AdamW."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    settings = {"optimizer.use": optimizer}
    on_ranks(lambda: learned(asked(straight, **settings)))
    stopped = on_ranks(lambda: learned(asked(broken, [StopAt(7)], **settings)))
    assert [rank["code"] for rank in stopped] == [75, 75]

    def go_on() -> Any:
        changed = [layer_of({"devices": 1}, "test")] if after == 1 else []
        return int(resume(broken, dataclasses.replace(asked(broken, [StopAt(-1)]), layers=changed)).exit_code)

    assert (on_ranks(go_on) if after == 2 else [go_on()]) == [0] * after
    one, other = weights_of(straight), weights_of(broken)
    if after == 2:
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert furthest(one, other) < 1e-5


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"callback": ["data-dropout"], "callback.data-dropout.method": "dbpd"},
            "data-dropout's dbpd and parallel fsdp exclude each other",
        ),
    ],
    ids=["by batch"],
)
def test_what_would_run_a_part_of_the_model_is_refused(tmp_path, settings, text):
    found = on_ranks(lambda: learned(asked(tmp_path / "run", **settings)))
    assert all(text in rank["text"] for rank in found)
    assert not (tmp_path / "run").exists()


def test_one_process_takes_no_notice_of_shards(tmp_path):
    learned(asked(tmp_path / "plain", parallel="ddp"))
    learned(asked(tmp_path / "fsdp"))
    assert furthest(weights_of(tmp_path / "plain"), weights_of(tmp_path / "fsdp")) == 0

"""Two ranks learn what one does: the gradient of a step is that of all its samples, however they are shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trainkit.data import Draws, EpochBatches
from trainkit.plan import Selection, Stage

from .tworanks import furthest, on_ranks, request, trained

pytestmark = [
    pytest.mark.xdist_group("ranks"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo"),
]


def both_ways(out: Path, settings: dict[str, Any], ranks: int = 2, **arguments: Any) -> float:
    """Train on one rank and on several; assert that these end with one set of weights; return how far off they are."""
    alone = trained(request({"out": str(out / "alone"), **settings}, **arguments))
    found = on_ranks(lambda: trained(request({"out": str(out / "ranks"), **settings}, **arguments)), ranks)
    assert [rank.get("text") for rank in found] == [None] * ranks
    assert all(rank["weights"] == found[0]["weights"] for rank in found)
    for fact in ("status", "steps", "samples", "epochs"):
        assert found[0][fact] == alone[fact], fact
    for tag, value in alone["results"].items():
        assert found[0]["results"][tag] == pytest.approx(value, rel=1e-5), tag
    return furthest(alone["weights"], found[0]["weights"])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loop.accumulate": 3},
        {"loop.accumulate": 2, "optimizer.use": "adamw", "optimizer.lr": 1e-3, "loop.variants": 2},
        {"loop.clip": 0.01, "metric": ["token-accuracy"], "evaluate.batch_size": 2},
    ],
    ids=["plain", "accumulated", "adamw", "clipped"],
)
def test_two_ranks_come_to_the_weights_of_one(tmp_path, settings):
    """With 21 samples in batches of 5 the last batch is one sample: the second rank has none of it."""
    assert both_ways(tmp_path, settings) < 1e-6


def test_three_ranks_come_to_the_weights_of_one(tmp_path):
    assert both_ways(tmp_path, {"loop.batch_size": 4}, ranks=3) < 1e-6


def test_stages_that_train_a_part_of_the_weights_on_a_part_of_the_samples(tmp_path):
    stages = (
        Stage(name="head", epochs=2, trainable=("head.*",), selection=Selection(easiest=0.5)),
        Stage(name="all", epochs=1),
    )
    assert both_ways(tmp_path, {}, stages=stages) < 1e-6


def test_shares_of_a_batch_are_its_samples_once_each():
    draws = Draws(torch.arange(11), torch.zeros(11, dtype=torch.long))

    def make(epoch: int, samples: Any, variants: Any) -> dict[str, Any]:
        return {"sample_id": samples.tolist()}

    for number in range(3):
        parts = [EpochBatches(make, draws, 0, 5, (rank, 3))[number] for rank in range(3)]  # type: ignore[arg-type]
        shares = [part.get("sample_id", []) for part in parts]
        assert sorted(sample for share in shares for sample in share) == list(
            range(5 * number, min(11, 5 * number + 5))
        )
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert shares == [[10], [], []]

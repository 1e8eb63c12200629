"""Callbacks, losses and metrics of several ranks: the same weights on each, and what one rank would have come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trainkit.compose import compose
from trainkit.draft import make_draft
from trainkit.evaluation import evaluate
from trainkit.registry import Registry
from trainkit.stepsums import StepSums
from trainkit.testing.tiny import TinyModel, TinyTask

from .tworanks import furthest, on_ranks, request, speaking_ranks, trained

pytestmark = [
    pytest.mark.xdist_group("ranks"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo"),
]
# What they do depends on nothing but the moment, the data and the gradient of all ranks.
SAME_AS_ONE: dict[str, dict[str, Any]] = {
    "ema": {"callback.ema.decay": 0.9},
    "gradient-noise": {},
    "unfreezing": {},
    "curriculum": {"callback.curriculum.until": 1.0},
    "quality-threshold": {},
    "early-stopping": {"callback.early-stopping.patience": 1, "callback.early-stopping.min_delta": 10.0},
    "data-dropout": {"callback.data-dropout.method": "srd", "callback.data-dropout.gamma": 0.6},
}
BY_BATCH = {"callback.data-dropout.method": "dbpd", "callback.data-dropout.tau": 0.07, "optimizer.lr": 1.0}


def asked(out: Path, name: str, settings: dict[str, Any]) -> Any:
    """Return the request of a run with a callback by name."""
    usual = {"out": str(out), "callback": ["no:tensorboard", name], "loop.epochs": 4}
    return request(usual | settings)


@pytest.mark.parametrize("name", SAME_AS_ONE)
def test_a_callback_does_on_two_ranks_what_it_does_on_one(tmp_path, name):
    settings = SAME_AS_ONE[name]
    alone = trained(asked(tmp_path / "alone", name, settings))
    found = on_ranks(lambda: trained(asked(tmp_path / "ranks", name, settings)))
    assert [rank.get("text") for rank in found] == [None, None]
    assert found[0]["weights"] == found[1]["weights"]
    assert (found[0]["steps"], found[0]["samples"]) == (alone["steps"], alone["samples"])
    assert furthest(alone["weights"], found[0]["weights"]) < 1e-6


def test_every_callback_that_is_installed_works_on_two_ranks(tmp_path):
    names = [name for name in Registry().names("callback") if name not in SAME_AS_ONE]
    assert names
    found = on_ranks(lambda: trained(asked(tmp_path / "run", names[0], {"callback": names})))
    assert [rank.get("text") for rank in found] == [None, None]
    assert found[0]["weights"] == found[1]["weights"]


def test_samples_that_batches_drop_are_counted_on_all_ranks(tmp_path):
    """Each rank drops what it knows of its share; a rank may keep none of it where the other keeps some."""

    def work() -> Any:
        from trainkit.api import start

        summary = start(asked(tmp_path / "run", "data-dropout", BY_BATCH)).summary
        return [summary["samples"], summary["summaries"]["callback data-dropout"]["samples_back_propagated"]]

    (samples, kept), (again, other) = on_ranks(work)
    assert samples == again == 4 * 21
    assert 21 < kept == other < samples


def test_each_rank_draws_dropout_of_its_own_and_the_same_again(tmp_path):
    def drawn() -> list[Any]:
        class Drawn(nn.Module):
            def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
                seen.append(float(torch.rand(1)))
                return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

        seen: list[float] = []
        trained(request({"out": str(tmp_path / f"run-{len(list(tmp_path.iterdir()))}")}, loss=Drawn()))
        return seen[:4]

    first, second = on_ranks(drawn), on_ranks(drawn)
    assert first == second
    assert first[0] != first[1]


class Whole:
    """A metric that cannot be summed over ranks: the longest run of right labels in the order of samples."""

    higher_is_better = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.right: list[bool] = []

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        self.right += (predictions == labels).flatten().tolist()

    def compute(self) -> float:
        return float(sum(place * right for place, right in enumerate(self.right)))


@pytest.mark.parametrize("metric", [["token-accuracy"], ["live:whole", "token-accuracy"]], ids=["sums", "no sums"])
def test_results_of_uneven_parts_are_those_of_one_rank(metric):
    """There are 21 validation samples in batches of 4: six batches, the last one of a sample, for two or four ranks."""
    from dataclasses import replace

    def results(world: Any = None) -> dict[str, float]:
        wanted = request({"metric": metric, "evaluate.batch_size": 4}, samples=63)
        live = {**wanted.live, "live:whole": Whole}
        draft = make_draft(wanted.layers, wanted.registry, live)
        if world is not None:
            draft.engine = replace(draft.engine, world=world)
        run = compose(draft)
        assert run.splits.val is not None
        return evaluate(run, "val", run.splits.val)

    alone = results()
    for ranks in (2, 4):
        for found in speaking_ranks(results, ranks):
            assert found == pytest.approx(alone, rel=1e-12, abs=1e-12)


def test_what_a_component_sums_may_be_missing_on_a_rank():
    def summed(world: Any) -> Any:
        sums = StepSums()
        if world.rank == 1:
            sums.put({"late": (torch.tensor([1.0, 2.0]), 3.0)})
            sums.keep()
        return {name: [total.tolist(), float(count)] for name, (total, count) in sums.take().items()}

    assert speaking_ranks(summed) == [{"late": [[1.0, 2.0], 3.0]}] * 2


def test_running_statistics_are_those_of_the_first_rank(tmp_path):
    class Normed(TinyModel):
        def __init__(self) -> None:
            super().__init__(16, 0.0)
            self.norm = nn.BatchNorm1d(16)

        def forward(self, tokens: Tensor) -> dict[str, Tensor]:
            hidden = self.mix(self.embedding(tokens))
            return {"logits": self.head(self.norm(hidden.transpose(1, 2)).transpose(1, 2))}

    class NormedTask(TinyTask):
        def build_model(self) -> nn.Module:
            return Normed()

    found = on_ranks(lambda: trained(request({"out": str(tmp_path / "run")}, task=NormedTask(samples=21))))
    assert [rank.get("text") for rank in found] == [None, None]
    assert found[0]["weights"] == found[1]["weights"]


def test_sparse_gradients_are_refused(tmp_path):
    class Sparse(TinyModel):
        def __init__(self) -> None:
            super().__init__(16, 0.0)
            self.embedding = nn.Embedding(13, 16, sparse=True)

    class SparseTask(TinyTask):
        def build_model(self) -> nn.Module:
            return Sparse()

    found = on_ranks(lambda: trained(request({"out": str(tmp_path / "run")}, task=SparseTask(samples=21))))
    assert all("the gradients of embedding are sparse" in rank["text"] for rank in found)

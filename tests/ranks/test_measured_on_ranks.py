"""Ranks that measure samples in several ways: each has a part of them, and the figures are those of one process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from trainkit.api import Request, evaluate, start
from trainkit.contracts import Batch, Dataset, Sample
from trainkit.nested import built
from trainkit.testing.tiny import TinyTask

from .tworanks import on_ranks, request

pytestmark = [
    pytest.mark.xdist_group("ranks"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo"),
]
TEMPLATES = ("{text}", "backwards: {text}", "last first: {text}")


class Asked:
    """Be the first samples of a dataset in each template; in all but the first, the model has to do with less."""

    def __init__(self, dataset: Dataset, count: int) -> None:
        self.dataset, self.count = dataset, count

    def __len__(self) -> int:
        return self.count * len(TEMPLATES)

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        found = []
        for index in indices:
            (sample,) = self.dataset.__getitems__([index % self.count])
            assert isinstance(sample, Mapping)
            number = index // self.count
            found.append({**sample, "tokens": (sample["tokens"] + 4 * number) % 13, "template": TEMPLATES[number]})
        return found


class Worded(TinyTask):
    """Measure each sequence in several templates."""

    gives = TinyTask.gives | {"templates"}
    defaults: Mapping[str, Any] = {**TinyTask.defaults, "loop.batch_size": 4, "evaluate.batch_size": 3}

    def measured(self, dataset: Dataset, count: int) -> Dataset:
        return Asked(dataset, count)

    def collate(self, samples: Any) -> Batch:
        return {**super().collate(samples), "templates": [each.get("template", TEMPLATES[0]) for each in samples]}


def figures(results: Mapping[str, float]) -> dict[str, float]:
    return {tag: value for tag, value in results.items() if tag.startswith("val/")}


def test_the_score_of_ranks_is_that_of_one_process(tmp_path: Path) -> None:
    def asked() -> Request:
        settings = {"out": str(tmp_path / "run"), "loop.epochs": 2}
        return request(settings, task=Worded(samples=21, dropout=0.0), metric=built("metric", "template-robustness"))

    def work() -> dict[str, float]:
        return figures(start(asked()).summary["results"]["model"])

    first, second = on_ranks(work)
    assert first == second
    alone = asked()
    whole = figures(evaluate(tmp_path / "run", "val", Request((), alone.live, alone.registry, report=alone.report)))
    assert len([tag for tag in whole if "perplexity/" in tag]) == len(TEMPLATES)
    assert first == pytest.approx(whole, rel=1e-5)
    score = next(value for tag, value in whole.items() if tag.count("/") == 1 and tag != "val/loss")
    assert 0 < score < 1

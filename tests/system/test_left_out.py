"""What a run leaves out is said: terms of the loss whose inputs are missing, samples skipped on request."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trainkit import LossOutput, hookimpl
from trainkit.api import start
from trainkit.contracts import Splits
from trainkit.loop import train
from trainkit.testing.tiny import TinyTask, tiny_request, tiny_run


class WithTerms(nn.Module):
    """Want boxes, which the tiny task never gives, and short batches, which it sometimes gives."""

    def forward(self, logits: Tensor, labels: Tensor, boxes: Tensor | None = None) -> LossOutput:
        missing = [
            name for name, is_missing in (("boxes", boxes is None), ("short", labels.shape[1] > 7)) if is_missing
        ]
        return LossOutput(logits.square().sum(), labels.numel(), inactive=missing)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_missing_term_is_warned_of_once_and_stands_in_results_report_and_card(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="trainkit"):
        done = start(tiny_request({"out": "run"}, loss=WithTerms))
    warned = [record.getMessage() for record in caplog.records]
    assert sorted(warned) == [
        "the loss's term 'boxes' is left out: a batch of train lacks what it reads",
        "the loss's term 'short' is left out: a batch of train lacks what it reads",
    ]
    terms = done.summary["inactive_terms"]
    assert terms["boxes"] == {"train": 1.0, "val": 1.0, "test": 1.0}
    assert 0 < terms["short"]["train"] < 1
    assert json.loads(Path("run/results.json").read_text())["inactive_terms"] == terms
    for name in ("report.html", "README.md"):
        text = Path("run", name).read_text().replace("&#x27;", "'")
        assert "term 'boxes' was left out in all batches of train, in all batches of val" in text
        assert re.search(r"term 'short' was left out in [0-9.]+ % of the batches of train", text)


def test_a_loss_with_all_its_terms_leaves_no_note() -> None:
    done = start(tiny_request({"out": "run"}))
    assert done.summary["inactive_terms"] == {}
    assert "term '" not in Path("run/README.md").read_text()


def test_what_was_noted_goes_on_after_a_resumption(caplog: pytest.LogCaptureFixture) -> None:
    first, second = tiny_run(loss=WithTerms), tiny_run(loss=WithTerms)
    first.inactive.note("train", {"boxes": 1})
    first.inactive.note("train", {}, 3)
    second.inactive.load_state_dict(json.loads(json.dumps(first.inactive.state_dict())))
    caplog.clear()
    second.inactive.note("train", {"boxes": 1})
    assert second.inactive.shares() == {"boxes": {"train": 0.4}}
    assert caplog.records == []


def test_samples_that_were_skipped_are_listed_and_counted() -> None:
    class Skipping(TinyTask):
        def read(self, data: Path | None, seed: int) -> Splits:
            whole = super().read(data, seed)
            skipped = [("a/1.json:3", "a box is outside"), ("b \n\u2028.png", "it is broken")]
            return Splits(whole.train, whole.val, source="tiny", fingerprint="f", skipped=skipped)

    start(tiny_request({"out": "run"}, task=Skipping()))
    lines = Path("run/skipped.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == [
        {"place": "a/1.json:3", "reason": "a box is outside"},
        {"place": "b \n\u2028.png", "reason": "it is broken"},
    ]
    assert json.loads(Path("run/plan.json").read_text())["data"]["skipped"] == 2
    for name in ("report.html", "README.md"):
        assert "2 samples were left out on request: see skipped.jsonl" in Path("run", name).read_text()


def test_where_nothing_was_skipped_there_is_no_such_file() -> None:
    start(tiny_request({"out": "run"}))
    assert not Path("run/skipped.jsonl").exists()
    assert "left out" not in Path("run/README.md").read_text()


def test_a_term_that_returns_in_a_replaced_loss_was_still_missing() -> None:
    class Replacing:
        @hookimpl
        def on_loss(self, loss: LossOutput) -> LossOutput:
            return LossOutput(loss.sum, loss.count)

    run: Any = tiny_run(loss=WithTerms, callbacks=[Replacing()])
    train(run)
    assert run.inactive.shares()["boxes"]["train"] == 1.0
    assert torch.isfinite(next(run.model.parameters())).all()

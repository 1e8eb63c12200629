"""Label smoothing has a floor that no model goes below; the plain likelihood beside it tells what was learned."""

from __future__ import annotations

import json
import math

import pytest
import trainkit
from trainkit.api import start
from trainkit.rundir import rows
from trainkit.testing import tiny
from trainkit.testing.resuming import assert_resumes
from trainkit.testing.tiny import VOCABULARY, tiny_request

SMOOTHING = 0.1
SETTINGS = {"loss.label_smoothing": SMOOTHING, "optimizer.lr": 0.03, "loop.log_every_steps": 5}


def floor_of(classes: int, smoothing: float) -> float:
    """Return the entropy of the smoothed target, the least that the smoothed loss can be."""
    rest = smoothing / classes
    right = 1 - smoothing + rest
    return -(right * math.log(right) + (classes - 1) * rest * math.log(rest))


@pytest.mark.parametrize(("classes", "floor"), [(4, 0.348780), (32128, 1.362789)])
def test_the_floor_is_the_published_one(classes, floor):
    assert floor_of(classes, SMOOTHING) == pytest.approx(floor, abs=1e-6)


def test_the_plain_likelihood_is_logged_beside_the_smoothed_loss_and_decides(tmp_path):
    floor = floor_of(VOCABULARY, SMOOTHING)
    asked = {"out": str(tmp_path / "run"), "loop.epochs": 12, "evaluate.monitor": "val/loss/nll", **SETTINGS}
    done = start(tiny_request({**asked, "metric": ["perplexity"]}, loss="cross-entropy"))
    logged = list(rows(tmp_path / "run" / "metrics.jsonl"))
    train = [row for row in logged if "train/loss" in row]
    assert all(row["train/loss"] >= floor for row in train)
    assert train[-1]["train/loss"] < 1.5 * floor
    assert train[-1]["train/loss/nll"] < floor
    val = [row for row in logged if "val/loss" in row]
    assert len(val) == 12
    for row in val:
        assert row["val/loss"] == row["val/loss/nll"]
        assert row["val/perplexity"] == pytest.approx(math.exp(row["val/loss/nll"]), rel=1e-6)
        assert row["val/perplexity/bits"] == pytest.approx(row["val/loss/nll"] / math.log(2), rel=1e-6)
    assert done.summary["best"] == min(row["val/loss/nll"] for row in val) < floor / 2


def test_smoothing_fades_and_a_resumed_run_goes_on_where_it_was(tmp_path):
    settings = {"loss.label_smoothing": SMOOTHING, "loss.until": 0.5, "loop.log_every_steps": 1}
    # 30 steps in all: stopped while it fades and after.
    straight = assert_resumes(tmp_path, list, [7, 20], settings, loss="cross-entropy")
    logged = [row for row in rows(straight / "metrics.jsonl") if "train/loss" in row]
    apart = [row["train/loss"] - row["train/loss/nll"] for row in logged]
    assert len(apart) == 30
    assert all(apart[:15])
    assert not any(apart[15:])


def test_early_stopping_hears_the_plain_likelihood(tmp_path):
    stopping = {"callback.early-stopping.patience": 1, "callback.early-stopping.min_delta": 10.0}
    done = trainkit.run(
        task=f"{tiny.__file__}:TinyTask",
        strategy="baseline",
        loss="cross-entropy",
        callback=["no:tensorboard", "early-stopping"],
        settings={
            **SETTINGS,
            **stopping,
            "callback.early-stopping.monitor": "val/loss/nll",
            "out": str(tmp_path / "run"),
            "loop.epochs": 20,
            "device": "cpu",
        },
    )
    assert done.status == "done"
    assert "val/loss/nll" in json.loads((tmp_path / "run" / "status.json").read_text())["reason"]

"""What Python calls can do that the command line need not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import trainkit
from trainkit.api import Request, start
from trainkit.draft import make_draft
from trainkit.testing.tiny import TinyTask, tiny_request


def test_live_objects_stand_for_names_and_a_model_is_evaluated_without_what_only_trained_it(tmp_path: Path) -> None:
    def optimizer(params: Any) -> torch.optim.Optimizer:
        return torch.optim.RAdam(params, lr=0.02)

    result = trainkit.run(
        task=TinyTask,
        strategy="baseline",
        optimizer=optimizer,
        metric="token-accuracy",
        callback="no:tensorboard",
        settings={"out": str(tmp_path / "run"), "loop.epochs": 3, "device": "cpu"},
    )
    assert result.status == "done"
    logged = result.summary["results"]["model"]["test/token-accuracy"]
    live = {"live:TinyTask": TinyTask}
    again = trainkit.evaluate(tmp_path / "run", "test", Request(live=live))
    assert again["test/token-accuracy"] == pytest.approx(logged, abs=1e-9)


def test_a_named_strategy_is_one_value_with_one_origin() -> None:
    request = tiny_request()
    draft = make_draft(request.layers, request.registry, request.live)
    assert [value.value for value in draft.config.history["strategy.use"]] == ["auto", "live:strategy"]


def test_a_run_returns_the_model_with_its_best_weights(tmp_path: Path) -> None:
    result = start(tiny_request({"out": str(tmp_path / "run")}))
    from safetensors.torch import load_file

    step = result.summary["best_step"]
    saved = load_file(tmp_path / "run" / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in result.model.state_dict().items())

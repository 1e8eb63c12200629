"""The name of the best checkpoint survives a kill between a checkpoint's commit and its naming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from trainkit import hookimpl
from trainkit.api import Request, resume, start
from trainkit.live import Run
from trainkit.testing.resuming import StopAt
from trainkit.testing.tiny import tiny_request


def test_a_lost_name_is_restored(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"evaluate.every_steps": 4, "optimizer.lr": 0.02, "out": str(tmp_path / "run")}
    asked = tiny_request(settings, callbacks=[StopAt(5)])
    assert start(asked).status == "stopped"
    name = tmp_path / "run" / "checkpoints" / "best.json"
    before = json.loads(name.read_text())
    assert before["step"] == 4
    name.unlink()
    # Nothing better comes: the rest of the run ruins the weights.
    live = dict(asked.live) | {"live:callback0": Ruin()}
    assert resume(tmp_path / "run", Request((), live, report=asked.report)).status == "done"
    assert json.loads(name.read_text())["step"] == 4


class Ruin:
    """Make every later step worse."""

    @hookimpl
    def on_step(self, run: Run) -> None:
        with torch.no_grad():
            run.learnable["head.weight"].mul_(-10)

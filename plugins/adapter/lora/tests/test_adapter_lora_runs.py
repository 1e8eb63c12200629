"""Runs of tasks that are no text: whatever has linear layers takes the adapter."""

from __future__ import annotations

import pytest
import trainkit


@pytest.mark.parametrize("task", ["layout", "series", "stocks"])
def test_models_of_other_tasks_learn_and_merge(tmp_path, task):
    settings = {"loop.max_steps": 2, "loop.batch_size": 2, "evaluate.final": False, "device": "cpu", "threads": 1}
    result = trainkit.run(
        task=task,
        adapter="lora",
        strategy="baseline",
        callback="no:tensorboard",
        settings={**settings, "optimizer.lr": 1e-3, "out": str(tmp_path / "run")},
    )
    found = result.summary["summaries"]["adapter"]
    assert found["layers"] > 1
    # The gates of slots begin as zero in a layout model, and one that is frozen there lets nothing through.
    assert [name for name in found["unlearned"] if ".slots." not in name] == []
    assert 0 < found["share"] < 0.6
    done = trainkit.merge(tmp_path / "run", tmp_path / "merged")
    assert done.merged <= 1e-4 * done.largest
    assert done.learned > 0

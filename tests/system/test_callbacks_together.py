"""Callbacks that change training, all at once: a run that is stopped inside comes to the same bits."""

from __future__ import annotations

from pathlib import Path

from trainkit.plan import Stage
from trainkit.testing.resuming import assert_resumes, logged

SETTINGS = {
    "callback": [
        *("no:tensorboard", "ema", "gradient-noise", "data-dropout", "quality-threshold", "curriculum"),
        *("early-stopping", "unfreezing"),
    ],
    "callback.ema.log_raw": True,
    "callback.curriculum.start": 0.5,
    "callback.data-dropout.gamma": 0.9,
    "callback.unfreezing.every": 2,
    "checkpoint.background": True,
    "optimizer.lr": 0.02,
    "loop.log_every_steps": 2,
    "loop.batch_size": 2,
}


def test_callbacks_that_change_training_resume_together_to_the_bit(tmp_path: Path) -> None:
    straight = assert_resumes(tmp_path, list, [7, 16], SETTINGS, [Stage(epochs=5)])
    rows = logged(straight)
    assert {"raw/val/loss", "train/gradient_noise", "val/loss"} <= {tag for row in rows for tag in row}
    assert 16 < rows[-1]["step"] < 60

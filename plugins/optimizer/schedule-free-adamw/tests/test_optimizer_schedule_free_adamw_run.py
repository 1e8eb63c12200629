"""Schedule-free AdamW in a run: the average is what is evaluated, saved and returned; training never notices."""

from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from trainkit import hookimpl
from trainkit.api import Request, evaluate, resume, start
from trainkit.errors import ExitCode, UsageError
from trainkit.rundir import rows
from trainkit.testing.component import same
from trainkit.testing.tiny import TinyTask, tiny_request, tiny_run

NAME = "schedule-free-adamw"
FINAL = {"loop.max_steps": 9, "optimizer.warmup": 3, "optimizer.lr": 0.02}


def request(out, callbacks=(), **more):
    return tiny_request({"optimizer": NAME, **FINAL, **more, "out": str(out)}, callbacks=callbacks)


def saved(out, name, step=9):
    return load_file(out / "checkpoints" / f"checkpoint-{step}" / name)


class StopAt:
    """Ask for a stop, as a signal does, after a step."""

    def __init__(self, step):
        self.step = step

    @hookimpl
    def on_step(self, run):
        if run.moment.step == self.step:
            run.signal = 10


def test_a_run_learns_without_a_schedule(tmp_path):
    start(request(tmp_path / "run", **{"loop.max_steps": 60, "loop.epochs": 100}))
    found = list(rows(tmp_path / "run" / "metrics.jsonl"))
    losses = [row["val/loss"] for row in found if "val/loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    assert {row["train/learning_rate"] for row in found if "train/learning_rate" in row} == {0.02}


@pytest.mark.parametrize("step", [2, 5])
def test_an_interrupted_run_comes_to_the_same_bits(tmp_path, step):
    start(request(tmp_path / "straight"))
    asked = request(tmp_path / "cut", callbacks=[StopAt(step)])
    assert start(asked).exit_code is ExitCode.STOPPED
    resumed = Request((), asked.live, asked.registry, asked.listeners, report=asked.report)
    assert resume(tmp_path / "cut", resumed).exit_code is ExitCode.DONE
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same(saved(tmp_path / "straight", name), saved(tmp_path / "cut", name))


def test_evaluations_and_checkpoints_leave_no_trace(tmp_path):
    start(request(tmp_path / "few"))
    often = {"evaluate.every_steps": 1, "checkpoint.every_steps": 1}
    start(request(tmp_path / "often", **often))
    assert same(saved(tmp_path / "few", "model.safetensors"), saved(tmp_path / "often", "model.safetensors"))
    steps = [row["step"] for row in rows(tmp_path / "often" / "metrics.jsonl") if "val/loss" in row]
    assert set(range(1, 10)) <= set(steps)


class Keep:
    """Keep what the weights are in each step, and in each evaluation."""

    def __init__(self):
        self.trained, self.fast, self.evaluated = {}, {}, {}

    @hookimpl
    def on_run_start(self, run):
        run.model.register_forward_hook(self.look)
        self.run = run

    def look(self, model, arguments, outputs):
        if not model.training:
            self.evaluated[self.run.moment.step] = model.head.bias.detach().clone()

    @hookimpl
    def on_step(self, run):
        bias = run.model.head.bias
        self.trained[run.moment.step] = bias.detach().clone()
        self.fast[run.moment.step] = run.optimizer.state[bias]["z"].clone()


def test_the_average_is_evaluated_saved_and_returned(tmp_path):
    keep = Keep()
    result = start(request(tmp_path / "run", callbacks=[keep], **{"loop.epochs": 1, "loop.max_steps": 6}))
    average = (keep.trained[6] - 0.1 * keep.fast[6]) / 0.9
    assert not torch.allclose(average, keep.trained[6], rtol=1e-3)
    torch.testing.assert_close(keep.evaluated[6], average)
    torch.testing.assert_close(saved(tmp_path / "run", "model.safetensors", 6)["head.bias"], average)
    torch.testing.assert_close(result.model.state_dict()["head.bias"], average)
    logged = [row["val/loss"] for row in rows(tmp_path / "run" / "metrics.jsonl") if "val/loss" in row]
    asked = request(tmp_path / "run", callbacks=[Keep()])
    again = evaluate(tmp_path / "run", "val", Request((), asked.live, asked.registry, report=asked.report))
    assert again["val/loss"] == pytest.approx(logged[-1], rel=1e-6)


def test_a_scheduler_is_refused(tmp_path):
    with pytest.raises(UsageError, match=rf"optimizer {NAME} takes no scheduler"):
        start(tiny_request({"optimizer": NAME, "scheduler": "cosine", "out": str(tmp_path / "run")}))
    assert not (tmp_path / "run").exists()


class Normed(TinyTask):
    """Have a model with a norm that averages activations."""

    def build_model(self):
        model = super().build_model()
        model.norm = nn.BatchNorm1d(3)
        return model


def test_a_norm_with_running_averages_is_warned_of(caplog):
    plain, normed = (tiny_run({"optimizer": NAME}, task=task) for task in (TinyTask(), Normed()))
    with caplog.at_level(logging.WARNING):
        plain.optimizer.on_run_start(plain)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        normed.optimizer.on_run_start(normed)
    assert "norm (1 in all) averages activations" in caplog.text

"""Sophia in a run: it learns, it resumes to the bit, and it leaves no trace in the step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from trainkit import LossOutput, hookimpl
from trainkit.api import Request, resume, start
from trainkit.errors import ExitCode, TrainkitError
from trainkit.loop import train
from trainkit.rundir import rows
from trainkit.testing.component import same
from trainkit.testing.tiny import TinyTask, tiny_request, tiny_run
from trainkit_optimizer_sophia.refresh import curvature_of, first_samples

ESTIMATORS = ["hutchinson", "gauss-newton-bartlett"]


def settings(estimator: str, **more):
    return {"optimizer": "sophia", "optimizer.estimator": estimator, "optimizer.every": 3, **more}


def train_losses(directory: Path):
    return [row["train/loss"] for row in rows(directory / "metrics.jsonl") if "train/loss" in row]


class StopAt:
    """Ask for a stop, as a signal does, after a step."""

    def __init__(self, step: int):
        self.step = step

    @hookimpl
    def on_step(self, run):
        if run.moment.step == self.step:
            run.signal = 10


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_run_learns_and_logs_the_win_rate(tmp_path, estimator):
    more = {"out": str(tmp_path / "run"), "loop.epochs": 25, "optimizer.lr": 0.01}
    assert start(tiny_request(settings(estimator, **more))).exit_code is ExitCode.DONE
    losses = train_losses(tmp_path / "run")
    assert losses[-1] < 0.3 * losses[0]
    rates = [row["train/win_rate"] for row in rows(tmp_path / "run" / "metrics.jsonl") if "train/win_rate" in row]
    assert rates
    assert all(0 <= rate <= 1 for rate in rates)
    assert max(rates) > 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("step", [4, 5])
def test_an_interrupted_run_comes_to_the_same_bits(tmp_path, estimator, step):
    """Step 4 asks for an estimate, step 5 does not."""
    more = {"optimizer.samples": 2, "loop.max_steps": 9}
    start(tiny_request(settings(estimator, **more, out=str(tmp_path / "straight"))))
    asked = tiny_request(settings(estimator, **more, out=str(tmp_path / "cut")), callbacks=[StopAt(step)])
    assert start(asked).exit_code is ExitCode.STOPPED
    resumed = Request((), asked.live, asked.registry, asked.listeners, report=asked.report)
    assert resume(tmp_path / "cut", resumed).exit_code is ExitCode.DONE
    for name in ("model.safetensors", "optimizer.safetensors"):
        ends = [load_file(tmp_path / run / "checkpoints" / "checkpoint-9" / name) for run in ("straight", "cut")]
        assert same(*ends)


def count(module, arguments):
    module.seen += 1


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_estimate_leaves_no_trace(estimator):
    run = tiny_run(settings(estimator, **{"loop.max_steps": 1}))
    train(run)
    run.model.register_buffer("seen", torch.zeros(()))
    run.model.register_forward_pre_hook(count)
    params = run.optimizer.curved()
    for p in params:
        p.grad = torch.full_like(p, 7.0)
    state = torch.get_rng_state()
    first = curvature_of(run, params, estimator, None)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p.grad, torch.full_like(p, 7.0)) for p in params)
    assert float(run.model.seen) == 0
    torch.manual_seed(5)
    assert same(first, curvature_of(run, params, estimator, None))
    run.moment.window += 1
    assert not same(first, curvature_of(run, params, estimator, None))


def test_the_refresh_comes_after_the_update_and_before_the_schedule():
    seen = []

    class Hear:
        @hookimpl
        def on_gradients(self, run):
            seen.append(("gradients", run.optimizer.state.get(run.optimizer.param_groups[0]["params"][0], {})))

        @hookimpl
        def on_step(self, run):
            hessian = run.optimizer.state[run.optimizer.param_groups[0]["params"][0]]["hessian"]
            seen.append((run.moment.step, float(hessian.abs().sum()) > 0, run.scheduler.last_epoch))

    train(tiny_run(settings("hutchinson", **{"loop.max_steps": 2}), callbacks=[Hear()]))
    assert seen[0] == ("gradients", {})
    assert [row for row in seen if row[0] in (1, 2)] == [(1, True, 0), (2, True, 1)]


def test_a_part_of_a_batch_is_its_first_samples():
    batch = {
        "sample_id": torch.arange(4),
        "x": torch.arange(8).view(4, 2),
        "names": list("abcd"),
        "rate": torch.ones(3),
    }
    few = first_samples(batch, 2)
    assert few["x"].tolist() == [[0, 1], [2, 3]]
    assert few["names"] == ["a", "b"]
    assert len(few["rate"]) == 3
    assert first_samples(batch, 9) is batch


class Squares(nn.Module):
    """Measure the squared logits: no likelihood."""

    def forward(self, logits: Tensor) -> LossOutput:
        return LossOutput(logits.square().sum(), logits.numel())


class Nameless(nn.Module):
    """Answer under another name."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Embedding(13, 13)

    def forward(self, tokens):
        return {"scores": self.inner(tokens)}


class Scores(nn.Module):
    """Measure the scores."""

    def forward(self, scores: Tensor) -> LossOutput:
        return LossOutput(scores.square().sum(), scores.numel())


class NamelessTask(TinyTask):
    """Have a model that gives no logits."""

    gives = frozenset({"tokens", "labels", "scores"})
    predicts = frozenset()

    def build_model(self):
        return Nameless()


def test_losses_and_models_without_likelihood_are_refused_for_gauss_newton_bartlett():
    asked = settings("gauss-newton-bartlett")
    with pytest.raises(TrainkitError, match=r"likelihood under the softmax of `logits`[\s\S]*estimator=hutchinson"):
        train(tiny_run(asked, loss=Squares))
    with pytest.raises(TrainkitError, match=r"needs a model that gives `logits`[\s\S]*gives scores"):
        train(tiny_run(asked, loss=Scores, task=NamelessTask()))
    train(tiny_run(settings("hutchinson", **{"loop.max_steps": 2}), loss=Scores, task=NamelessTask()))


def test_a_compiled_model_is_refused_before_the_first_step():
    run = tiny_run(settings("hutchinson"))
    run.model.compile(backend="eager")
    with pytest.raises(TrainkitError, match=r"compiled model[\s\S]*leave out loop.compile"):
        train(run)
    assert run.moment.step == 0

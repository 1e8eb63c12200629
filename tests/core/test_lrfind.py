"""The learning-rate finder on runs: what it tests, what it leaves as it was, what it refuses, what a run takes."""

from __future__ import annotations

import json
import math
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trainkit
from torch import nn
from trainkit import hookimpl
from trainkit.api import resume, start
from trainkit.contracts import LossOutput
from trainkit.errors import ExitCode, PluginError, UsageError
from trainkit.lrfind.finder import Search, find
from trainkit.lrfind.foundrate import PLOT, RECORD
from trainkit.lrfind.rangetest import rates
from trainkit.plan import Stage
from trainkit.registry import Registry
from trainkit.rundir import rows
from trainkit.testing.resuming import StopAt
from trainkit.testing.tiny import TinyModel, TinyTask, tiny_request, tiny_run
from trainkit.unchanged import fingerprints, unchanged

QUICK = {"loop.batch_size": 8}


class Watch:
    """Note the rates and the samples of every step."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.samples: list[int] = []
        self.names: list[str] = []

    @hookimpl
    def on_run_start(self) -> None:
        self.names.append("run")

    @hookimpl
    def on_epoch_start(self) -> None:
        self.names.append("epoch")

    @hookimpl
    def on_loss(self, batch: dict[str, Any]) -> None:
        self.samples += batch["sample_id"].tolist()

    @hookimpl
    def on_step(self, run: Any) -> None:
        self.rates.append([group["lr"] for group in run.optimizer.param_groups])

    @hookimpl
    def before_evaluation(self) -> None:
        self.names.append("evaluation")

    @hookimpl
    def on_checkpoint(self) -> None:
        self.names.append("checkpoint")


class Discriminative(torch.optim.AdamW):
    """Give vectors a tenth of the rate."""

    def __init__(self, params: Any, lr: float = 0.01) -> None:
        groups = [{**group, "lr": lr / 10 if group["name"] == "no_decay" else lr} for group in params]
        super().__init__(groups, lr=lr)


class Counting(nn.Module):
    """Keep state in a buffer, in a buffer that no checkpoint holds, in a parameter and in plain Python."""

    calls: torch.Tensor
    hidden: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("hidden", torch.zeros(()), persistent=False)
        self.scale = nn.Parameter(torch.ones(()))
        self.seen = 0

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> LossOutput:
        self.calls += 1
        self.hidden = self.hidden + 1
        self.seen += 1
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        return LossOutput(loss * self.scale, int((labels >= 0).sum()))

    def get_extra_state(self) -> int:
        return self.seen

    def set_extra_state(self, state: int) -> None:
        self.seen = state


class NormalisedModel(TinyModel):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(width, dropout)
        self.normal = nn.BatchNorm1d(width)

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.normal(self.embedding(tokens).transpose(1, 2)).transpose(1, 2)
        return {"logits": self.head(self.mix(hidden))}


class NormalisedTask(TinyTask):
    def build_model(self) -> nn.Module:
        return NormalisedModel(self.width, self.dropout)


def weights(run: Any) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in run.model.parameters()]


def test_each_step_has_its_rate_and_groups_keep_their_ratio():
    watch = Watch()
    run = tiny_run(QUICK, optimizer=Discriminative, callbacks=[watch])
    test = find(run, Search(1e-6, 1e-2, 20))
    assert test.rates == tuple(rates(1e-6, 1e-2, 20))
    assert [main for main, _, _ in watch.rates] == pytest.approx(test.rates)
    assert [other for _, _, other in watch.rates] == pytest.approx([rate / 10 for rate in test.rates])
    assert [group["lr"] for group in run.optimizer.param_groups] == [0.01, 0.01, 0.001]


def test_the_stage_keeps_its_factor_and_its_weights():
    watch = Watch()
    stages = [Stage(name="head", epochs=1, lr_factor=0.5, trainable=("head.*",)), Stage(name="all", epochs=1)]
    run = tiny_run(QUICK, stages=stages, callbacks=[watch])
    moved: list[bool] = []
    embedding = run.model.embedding.weight.detach().clone()
    find(run, Search(steps=15), lambda *_: moved.append(not torch.equal(embedding, run.model.embedding.weight)))
    assert [main for main, *_ in watch.rates] == pytest.approx([0.5 * rate for rate in rates(1e-8, 1.0, 15)])
    assert not any(moved)
    assert all(parameter.requires_grad for parameter in run.model.parameters())


def test_accumulation_draws_as_training_does_over_epochs_and_nothing_is_evaluated_or_saved():
    watch, trained = Watch(), Watch()
    settings = {"loop.batch_size": 4, "loop.accumulate": 2}
    run = tiny_run(settings, callbacks=[watch])
    find(run, Search(steps=13))
    assert len(watch.rates) == 13
    assert watch.names == ["run", *["epoch"] * 5]
    from trainkit.loop import train

    train(tiny_run({**settings, "loop.epochs": 5}, callbacks=[trained]))
    assert watch.samples == trained.samples[: len(watch.samples)]


def test_losses_are_those_of_the_first_steps_of_training():
    values: list[float] = []
    run = tiny_run(QUICK)
    find(run, Search(1e-30, 1e-29, 13), lambda number, rate, loss: values.append(loss))

    class Rows:
        found: list[float] = []

        @hookimpl
        def on_log(self, row: dict[str, float]) -> None:
            self.found += [row["train/loss"]] if "train/loss" in row else []

    from trainkit.loop import train

    heard = Rows()
    train(tiny_run({**QUICK, "loop.log_every_steps": 1, "loop.epochs": 5, "optimizer.lr": 1e-30}, callbacks=[heard]))
    assert values == heard.found[:13]


@pytest.mark.parametrize("steps_before", [0, 3])
def test_a_run_is_as_before_to_the_bit(steps_before):
    run = tiny_run({**QUICK, "loop.max_steps": steps_before or None}, task=NormalisedTask(), loss=Counting)
    if steps_before:
        from trainkit.loop import train

        train(run)
        run.moment.stage = 0
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    buffer, hidden = run.model.normal.running_mean, run.loss.hidden
    before, states = fingerprints(run), torch.get_rng_state()
    gathered, moment = run.gathered, run.moment.state_dict()
    calls: list[float] = []
    find(run, Search(steps=20), lambda *_: calls.append(float(run.loss.calls)))
    assert calls[-1] >= 13, "the test did not run"
    assert fingerprints(run) == before
    assert run.model.normal.running_mean is buffer
    assert run.loss.hidden is hidden
    assert run.gathered is gathered
    assert run.moment.state_dict() == moment
    assert torch.equal(torch.get_rng_state(), states)
    assert all(parameter.grad is None for parameter in run.model.parameters())


def test_fingerprints_see_each_part_change():
    run = tiny_run(QUICK, loss=Counting)
    before = fingerprints(run)
    changes = {
        "model": lambda: run.model.head.bias.data.add_(1e-7),
        "loss": lambda: run.loss.hidden.add_(1),
        "loss state": lambda: setattr(run.loss, "seen", 7),
        "moment": lambda: setattr(run.moment, "window", 5),
        "optimizer": lambda: run.optimizer.param_groups[0].update(lr=0.5),
        "generators": lambda: torch.rand(1),
    }
    for label, change in changes.items():
        change()
        after = fingerprints(run)
        assert label in {name for name in before if before[name] != after[name]}
        before = after


def test_training_after_a_test_is_training_without_one_by_every_optimizer_that_takes_a_rate():
    from trainkit.loop import train

    names = Registry().names("optimizer")
    tested = 0
    for name in names:
        settings = {**QUICK, "optimizer": name, "loop.max_steps": 3}
        plain, after = tiny_run(settings), tiny_run(settings)
        if not getattr(after.optimizer, "takes_rate", True):
            with pytest.raises(UsageError, match=f"optimizer {name} takes no learning rate"):
                find(after, Search(steps=13))
            continue
        tested += 1
        find(after, Search(steps=13))
        train(plain)
        train(after)
        assert all(map(torch.equal, weights(plain), weights(after))), name
    assert tested, f"nothing to test among {names}"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_ends_a_test_early_leaves_the_run_as_it_was_too(error):
    run = tiny_run(QUICK)
    before = fingerprints(run)

    def interrupt(number: int, rate: float, loss: float) -> None:
        if number == 3:
            raise error

    with pytest.raises(error):
        find(run, Search(), interrupt)
    assert fingerprints(run) == before


def test_a_signal_ends_a_test_at_its_next_step_and_keeps_what_was_measured():
    class Stop:
        @hookimpl
        def on_step(self, run: Any) -> None:
            run.signal = signal.SIGTERM if run.moment.step == 20 else None

    test = find(tiny_run(QUICK, callbacks=[Stop()]))
    assert (test.ended, test.signal, len(test.losses)) == ("interrupted", signal.SIGTERM, 20)


def test_a_component_that_cannot_be_put_back_is_named():
    class Forgetful:
        steps = 0

        def state_dict(self) -> dict[str, Any]:
            return {"steps": self.steps}

        def load_state_dict(self, state: Any) -> None:
            self.steps = 0

        @hookimpl
        def on_step(self) -> None:
            self.steps += 1

    run = tiny_run(QUICK, callbacks=[forgetful := Forgetful()])
    forgetful.steps = 4
    with pytest.raises(PluginError, match=r"callback live:callback0 .*cannot be put back as it was"):
        find(run, Search(steps=13))


def test_a_block_that_changes_nothing_is_left_in_peace():
    run = tiny_run(QUICK)
    with unchanged(run):
        torch.rand(3)
        run.model.eval()
    assert run.model.training


def test_a_gradient_that_is_not_finite_ends_the_test():
    class Breaks(nn.Module):
        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> LossOutput:
            mean = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
            return LossOutput(mean * (math.nan if float(mean.detach()) > 50 else 1.0), 1)

    for policy in ("stop", "skip"):
        run = tiny_run({**QUICK, "loop.nan_policy": policy, "loop.clip": None}, loss=Breaks)
        before = fingerprints(run)
        test = find(run, Search(1e-3, 1e6, 60))
        assert test.ended in ("not finite", "exploded")
        assert len(test.losses) < 60
        assert fingerprints(run) == before


def test_a_scale_that_is_too_large_is_no_end_and_is_put_back():
    class Large(nn.Module):
        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> LossOutput:
            return LossOutput(1e3 * nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), 1)

    run = tiny_run(QUICK, loss=Large)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    skipped: list[int] = []
    test = find(run, Search(steps=20), lambda *_: skipped.append(run.moment.skipped_total))
    assert len(test.losses) == 20
    assert skipped[0] > 0, "the scale was not too large"
    assert all(map(math.isfinite, test.losses))
    assert run.scaler.get_scale() == 2.0**127
    assert run.moment.skipped_total == 0


def test_a_loss_that_is_never_finite_suggests_nothing():
    class Broken(nn.Module):
        def forward(self, logits: torch.Tensor) -> LossOutput:
            return LossOutput(logits.sum() * math.nan, 1)

    test = find(tiny_run(QUICK, loss=Broken))
    assert (test.ended, test.suggestion, len(test.losses)) == ("not finite", None, 1)


class Free(torch.optim.SGD):
    takes_rate = False

    def __init__(self, params: Any, lr: float = 1.0) -> None:
        super().__init__(params, lr=lr)


class Rateless(torch.optim.SGD):
    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.1)


class AtRest(torch.optim.SGD):
    def __init__(self, params: Any, lr: float = 0.0) -> None:
        super().__init__(params, lr=lr)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (Free, "takes no learning rate from outside, so there is none to find"),
        (Rateless, "has no option lr, so a rate that was found could not be set"),
        (AtRest, "the plan trains with a rate of 0"),
    ],
)
def test_where_a_rate_has_no_meaning_the_test_is_refused_and_leaves_nothing(tmp_path, optimizer, message):
    settings = {**QUICK, "lr_find": True, "out": str(tmp_path / "run")}
    with pytest.raises(UsageError, match=message):
        start(tiny_request(settings, optimizer=optimizer))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match=message):
        trainkit.find_learning_rate(task=TinyTask(), optimizer=optimizer, strategy="baseline", callback="none")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1e-3, 1e-4), "go up from a smallest above 0"),
        ((0.0, 1.0), "go up from a smallest above 0"),
        ((1e-3, math.inf), "go up from a smallest above 0"),
        ((1e-3, 1.0, 12), "needs 13 steps at least"),
        ((1e-3, 1.0, 20, "best"), "no rule 'best'"),
        ((1e-3, 1.0, 20, "valley", "square"), "no axis 'square'"),
    ],
)
def test_a_search_checks_what_it_is_given(arguments, message):
    with pytest.raises(UsageError, match=message):
        Search(*arguments)


def test_find_learning_rate_leaves_live_objects_as_they_were():
    loss = Counting()
    before = {name: value.clone() for name, value in loss.named_buffers()}
    test = trainkit.find_learning_rate(
        task=TinyTask(samples=64), loss=loss, strategy="baseline", callback="none", settings={"device": "cpu"}, steps=60
    )
    assert test.suggestion is not None
    assert test.rates[0] == 1e-8
    assert loss.seen == 0
    assert all(torch.equal(before[name], value) for name, value in loss.named_buffers())


SEARCHING = {**QUICK, "lr_find": True, "loop.max_steps": 9, "checkpoint.every_steps": 3}


def searching(out: Path, settings: dict[str, Any] | None = None, **live: Any) -> Any:
    return tiny_request({**SEARCHING, "out": str(out), **(settings or {})}, task=TinyTask(samples=64), **live)


def test_a_run_takes_the_rate_that_was_found_and_says_so(tmp_path):
    result = start(searching(tmp_path / "run"))
    assert result.exit_code is ExitCode.DONE
    found = json.loads((tmp_path / "run" / RECORD).read_text())
    rate = found["suggestion"]
    assert rate == found["suggestions"]["steepest"] != 1e-3
    history = json.loads((tmp_path / "run/resolved.json").read_text())["optimizer.lr"]
    assert history[-1]["value"] == rate
    assert history[-1]["origin"] == "lr_find"
    assert "where the loss fell fastest" in history[-1]["reason"]
    search = json.loads((tmp_path / "run/resolved.json").read_text())["lr_find"]
    assert [value["value"] for value in search] == [True, False]
    assert search[-1]["reason"].startswith(f"done: optimizer.lr = {rate:g} instead of 0.001")
    assert (tmp_path / "run" / PLOT).read_bytes().startswith(b"\x89PNG")
    assert "learning-rate range test" in (tmp_path / "run/report.html").read_text()
    given = tiny_request(
        {**SEARCHING, "lr_find": False, "optimizer.lr": rate, "out": str(tmp_path / "given")}, task=TinyTask(samples=64)
    )
    assert all(map(torch.equal, weights(result), weights(start(given))))


def test_groups_of_a_run_keep_their_ratio_to_the_rate_that_was_found(tmp_path):
    watch = Watch()
    start(searching(tmp_path / "run", {"scheduler": "constant"}, optimizer=Discriminative, callbacks=[watch]))
    rate = json.loads((tmp_path / "run" / RECORD).read_text())["suggestion"]
    assert watch.names[0] == "run"
    assert watch.rates == [pytest.approx([rate, rate, rate / 10])] * 9


def test_a_resumed_run_does_not_search_again(tmp_path, monkeypatch):
    straight = start(searching(tmp_path / "straight"))
    stopped = start(searching(tmp_path / "stopped", callbacks=[StopAt(5, signal.SIGTERM)]))
    assert stopped.exit_code is ExitCode.TERMINATED
    request = searching(tmp_path / "stopped", callbacks=[StopAt(-1, signal.SIGTERM)])
    monkeypatch.setattr("trainkit.lrfind.finder.find", None)
    done = resume(tmp_path / "stopped", trainkit.api.Request(live=request.live, report=request.report))
    assert done.exit_code is ExitCode.DONE
    assert all(map(torch.equal, weights(straight), weights(done)))


class StopSearch(TinyTask):
    """Be interrupted in the test of the rates."""

    interrupts = True

    @hookimpl
    def on_step(self, run: Any) -> None:
        if self.interrupts and run.moment.step == 4:
            run.signal = signal.SIGINT


def test_a_run_that_is_interrupted_in_its_search_searches_again_when_it_resumes(tmp_path):
    straight = start(searching(tmp_path / "straight"))
    task = StopSearch(samples=64)
    request = tiny_request({**SEARCHING, "out": str(tmp_path / "run")}, task=task)
    stopped = start(request)
    assert (stopped.exit_code, stopped.status) == (ExitCode.INTERRUPTED, "interrupted")
    assert not (tmp_path / "run" / RECORD).exists()
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "interrupted"
    task.interrupts = False
    done = resume(tmp_path / "run", trainkit.api.Request(live=request.live, report=request.report))
    assert done.exit_code is ExitCode.DONE
    assert (tmp_path / "run" / RECORD).exists()
    assert all(map(torch.equal, weights(straight), weights(done)))


def test_a_second_interrupt_in_the_search_ends_it_at_once(tmp_path):
    class Impatient(TinyTask):
        @hookimpl
        def on_step(self) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        start(tiny_request({**SEARCHING, "out": str(tmp_path / "run")}, task=Impatient()))
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("interrupted", 130)


def test_without_a_suggestion_a_run_says_why_and_goes_on(tmp_path):
    class Flat(nn.Module):
        def forward(self, logits: torch.Tensor) -> LossOutput:
            return LossOutput(0.0 * logits.sum() + 2.0 * len(logits), len(logits))

    said: list[str] = []
    request = searching(tmp_path / "run", loss=Flat)
    result = start(trainkit.api.Request(request.layers, request.live, report=said.append))
    assert result.exit_code is ExitCode.DONE
    assert any("no rate found, optimizer.lr stays 0.001: the loss does not fall" in line for line in said), said
    history = json.loads((tmp_path / "run/resolved.json").read_text()).get("optimizer.lr", [])
    assert all(value["origin"] != "lr_find" for value in history)
    assert "no learning rate was found" in (tmp_path / "run/report.html").read_text()


def test_a_failure_in_the_search_is_told_as_one_of_training(tmp_path):
    class Fails(TinyTask):
        @hookimpl
        def on_step(self) -> None:
            raise ValueError("broken in step 1")

    with pytest.raises(trainkit.TrainkitError, match="broken in step 1"):
        start(tiny_request({**SEARCHING, "out": str(tmp_path / "run")}, task=Fails()))
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "failed"


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"loop.log_every_steps": 2, "evaluate.every_epochs": None}, [2, 4, 6]),
        ({"loop.log_every_steps": None, "loop.log_every_epochs": 1, "evaluate.every_epochs": None}, [3, 6]),
        ({"loop.log_every_steps": None, "loop.log_every_epochs": 2, "evaluate.every_epochs": None}, [6]),
        ({"loop.log_every_steps": 4, "loop.log_every_epochs": 1, "evaluate.every_epochs": None}, [3, 4, 6]),
    ],
    ids=["steps", "epochs", "second epochs", "both"],
)
def test_rows_hold_the_rate_of_each_group_by_step_and_by_epoch(tmp_path, settings, steps):
    settings = {"loop.batch_size": 8, "loop.max_steps": 6, "out": str(tmp_path / "run"), **settings}
    start(tiny_request(settings, optimizer=Discriminative))
    found = [row for row in rows(tmp_path / "run/metrics.jsonl") if "train/learning_rate" in row]
    assert [row["step"] for row in found] == steps
    for row in found:
        assert row["train/learning_rate/no_decay"] == pytest.approx(row["train/learning_rate/decay"] / 10)
        assert row["train/learning_rate"] == row["train/learning_rate/decay"]
    assert len({row["train/learning_rate"] for row in found}) == len(found)

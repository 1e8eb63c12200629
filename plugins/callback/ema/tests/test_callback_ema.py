from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from trainkit import UsageError, hookimpl
from trainkit.api import Request, evaluate, resume, start
from trainkit.contracts import LossOutput
from trainkit.errors import ExitCode
from trainkit.plan import Stage
from trainkit.rundir import rows
from trainkit.testing import CallbackConformance
from trainkit.testing.component import same
from trainkit.testing.resuming import assert_resumes
from trainkit.testing.tiny import TinyTask, tiny_request
from trainkit_callback_ema.average import Average, decay_at
from trainkit_callback_ema.ema import EMA


def fake_run(weights, step=1):
    return SimpleNamespace(learnable=weights, moment=SimpleNamespace(step=step), total_steps=10)


def weight(*values, dtype=torch.float32):
    return nn.Parameter(torch.tensor(values, dtype=dtype))


class TestEMA(CallbackConformance):
    component = "ema"

    def used(self):
        callback, run = self.build(), fake_run({"a": weight(1.0, 2.0), "b": weight(3.0, dtype=torch.bfloat16)})
        callback.on_gradients(run)
        callback.on_step(run)
        callback.swap_weights_in(run)
        return callback


def test_decay_rises_as_published():
    found = {t: decay_at(t, 0.9999) for t in (0, 1, 10, 100, 1000)}
    assert found == pytest.approx({0: 0.1, 1: 0.1818, 10: 0.55, 100: 0.9182, 1000: 0.9911}, abs=5e-5)
    assert decay_at(89_989, 0.9999) < 0.9999
    assert decay_at(89_990, 0.9999) == decay_at(10**9, 0.9999) == 0.9999
    assert decay_at(0, 0.999, warmup=False) == 0.999
    assert [decay_at(t, 0.99, power=0.75) for t in (0, 15, 10**6)] == pytest.approx([0, 0.875, 0.99])
    assert decay_at(20, 1.0, power=2 / 3, gamma=20) == pytest.approx(1 - 2 ** (-2 / 3))


def test_average_follows_the_recurrence_and_begins_as_a_copy():
    weights, average = {"a": weight(1.0, -2.0)}, Average()
    average.follow(weights)
    assert torch.equal(average.tensors["a"], weights["a"])
    assert average.tensors["a"].data_ptr() != weights["a"].data_ptr()
    for _ in range(1000):
        average.update(weights, 0.999)
    torch.testing.assert_close(average.tensors["a"], weights["a"].detach(), rtol=0, atol=0)
    with torch.no_grad():
        weights["a"] += 1
    for _ in range(1000):
        average.update(weights, 0.999)
    torch.testing.assert_close(weights["a"] - average.tensors["a"], torch.full((2,), 0.999**1000), rtol=1e-3, atol=0)
    average.update(weights, 0.0)
    assert torch.equal(average.tensors["a"], weights["a"])


def test_weights_of_low_precision_have_an_average_of_high_precision():
    weights, average = {"a": weight(1.0, dtype=torch.bfloat16), "b": weight(1.0, dtype=torch.float64)}, Average()
    average.follow(weights)
    assert {name: tensor.dtype for name, tensor in average.tensors.items()} == {
        "a": torch.float32,
        "b": torch.float64,
    }
    with torch.no_grad():
        weights["a"] += 1
    average.update(weights, 0.999)
    assert float(average.tensors["a"]) == pytest.approx(1.001)


class Watch:
    """Average in double precision, by the recurrence itself; note what is in the model when it is used."""

    def __init__(self, decay=0.9999):
        self.decay, self.updates, self.average, self.trained, self.evaluated = decay, 0, {}, {}, {}

    @hookimpl
    def on_run_start(self, run):
        self.run = run
        run.model.register_forward_hook(self.look)

    def look(self, model, arguments, outputs):
        if not model.training:
            self.evaluated[self.run.moment.step] = {n: p.detach().clone() for n, p in model.named_parameters()}

    @hookimpl
    def on_gradients(self, run):
        for name, p in run.learnable.items():
            if p.requires_grad:
                self.average.setdefault(name, p.detach().double())

    @hookimpl
    def on_step(self, run):
        share = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        self.trained = {name: p.detach().clone() for name, p in run.learnable.items()}
        self.average = {
            name: share * old + (1 - share) * run.learnable[name].double() for name, old in self.average.items()
        }


class Half(TinyTask):
    """Have a model in bf16."""

    def build_model(self):
        return super().build_model().bfloat16()


def asked(out, *callbacks, settings=None, **arguments):
    """Return the request of five epochs of six steps."""
    arguments.setdefault("stages", [Stage(epochs=5)])
    return tiny_request({"out": str(out), "optimizer.lr": 0.02, **(settings or {})}, callbacks=callbacks, **arguments)


def saved(out, step=30, name="model.safetensors"):
    return load_file(out / "checkpoints" / f"checkpoint-{step}" / name)


def logged(out, tag):
    return [row[tag] for row in rows(out / "metrics.jsonl") if tag in row]


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_the_average_is_evaluated_saved_and_returned_and_training_never_notices(tmp_path):
    watch = Watch()
    start(asked(tmp_path / "plain"))
    result = start(asked(tmp_path / "run", EMA(log_raw=True), watch))
    assert watch.updates == 30
    assert_close(saved(tmp_path / "run"), watch.average)
    last = {name: tensor.clone() for name, tensor in result.model.state_dict().items()}
    best = saved(tmp_path / "run", result.summary["best_step"])
    assert same(last, best)
    plain = saved(tmp_path / "plain")
    assert same(plain, watch.trained)
    assert not same(plain, saved(tmp_path / "run"))
    assert same(
        saved(tmp_path / "plain", name="optimizer.safetensors"), saved(tmp_path / "run", name="optimizer.safetensors")
    )
    assert logged(tmp_path / "run", "raw/val/loss") == logged(tmp_path / "plain", "val/loss")
    averaged = logged(tmp_path / "run", "val/loss")
    assert len(averaged) == 5
    assert result.summary["best"] == min(averaged)
    assert set(averaged).isdisjoint(logged(tmp_path / "plain", "val/loss"))


def test_every_evaluation_sees_the_average_and_every_checkpoint_holds_it_once(tmp_path):
    watch = Watch()
    often = {"evaluate.every_steps": 1, "loop.max_steps": 4, "checkpoint.keep_best": 4, "evaluate.final": False}
    start(asked(tmp_path / "run", EMA(), watch, settings=often))
    for step in (1, 2, 3, 4):
        assert same(saved(tmp_path / "run", step), watch.evaluated[step])
    kept = saved(tmp_path / "run", 4, "state.safetensors")
    assert sum(tensor.numel() for tensor in kept.values() if tensor.numel() > 13) == sum(
        tensor.numel() for tensor in watch.trained.values() if tensor.numel() > 13
    )
    assert not (tmp_path / "run" / "metrics.jsonl").read_text().count("raw/")


@pytest.mark.parametrize(
    ("task", "background"), [(TinyTask, False), (Half, True)], ids=["fp32", "bf16 saved in the background"]
)
def test_two_epochs_and_three_are_five_to_the_bit(tmp_path, task, background):
    settings = {"optimizer.lr": 0.02, "checkpoint.background": background}
    straight = assert_resumes(tmp_path, lambda: [EMA(log_raw=True)], [12, 16], settings, task=task())
    assert len(logged(straight, "raw/val/loss")) == len(logged(straight, "val/loss")) == 5


def test_a_run_resumes_at_an_unfreeze(tmp_path):
    stages = [Stage(name="head", epochs=1, trainable=("head.*",)), Stage(name="all", epochs=1)]
    assert_resumes(tmp_path, lambda: [EMA()], [6], stages=stages)


def test_a_stop_inside_an_evaluation_resumes_to_the_same_bits(tmp_path):
    class StopInside:
        @hookimpl
        def on_run_start(self, run):
            run.model.register_forward_hook(lambda model, *_: self.stop(run, model))

        def stop(self, run, model):
            if not model.training and run.moment.step == 12:
                run.signal = 10

    start(asked(tmp_path / "straight", EMA(log_raw=True)))
    cut = asked(tmp_path / "cut", EMA(log_raw=True), StopInside(), settings={"evaluate.batch_size": 2})
    assert start(cut).exit_code is ExitCode.STOPPED
    live = {**cut.live, "live:callback0": EMA(log_raw=True), "live:callback1": Watch()}
    assert resume(tmp_path / "cut", Request((), live, cut.registry, report=cut.report)).exit_code is ExitCode.DONE
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same(saved(tmp_path / "straight", name=name), saved(tmp_path / "cut", name=name))
    assert len(logged(tmp_path / "cut", "raw/val/loss")) == len(logged(tmp_path / "cut", "val/loss")) == 5


def test_what_is_unfrozen_later_is_averaged_from_a_copy_at_that_moment(tmp_path):
    stages = [Stage(name="head", epochs=1, trainable=("head.*",)), Stage(name="all", epochs=2)]
    watch, first = Watch(), {}

    class Start:
        @hookimpl
        def on_step(self, run):
            if run.moment.step in (6, 7):
                first[run.moment.step] = run.learnable["embedding.weight"].detach().clone()

    start(asked(tmp_path / "run", EMA(), watch, Start(), stages=stages))
    assert_close(saved(tmp_path / "run", 18), watch.average)
    late = saved(tmp_path / "run", 18)["embedding.weight"]
    assert not torch.equal(first[6], first[7])
    assert not torch.equal(late, watch.trained["embedding.weight"])


def test_skipped_updates_do_not_move_the_average(tmp_path):
    class Ruin:
        @hookimpl
        def on_loss(self, run, loss):
            return LossOutput(loss.sum * float("nan"), loss.count) if run.moment.window == 2 else None

    watch = Watch()
    settings = {"loop.nan_policy": "skip"}
    result = start(asked(tmp_path / "run", EMA(), watch, Ruin(), settings=settings, stages=[Stage(epochs=1)]))
    assert (result.summary["skipped_updates"], watch.updates) == (1, 5)
    assert_close(saved(tmp_path / "run", 5), watch.average)


def test_buffers_are_those_of_the_trained_model(tmp_path):
    class Normed(TinyTask):
        def build_model(self):
            model = super().build_model()
            model.mix.append(Tokenwise(16))
            return model

    start(asked(tmp_path / "plain", task=Normed(), settings={"loop.max_steps": 6}))
    start(asked(tmp_path / "run", EMA(), task=Normed(), settings={"loop.max_steps": 6}))
    one, other = saved(tmp_path / "plain", 6), saved(tmp_path / "run", 6)
    buffers = [name for name in one if "running" in name or "num_batches" in name]
    assert len(buffers) == 3
    assert all(torch.equal(one[name], other[name]) for name in buffers)
    assert not torch.equal(one["head.bias"], other["head.bias"])


class Tokenwise(nn.BatchNorm1d):
    """Normalise the features of [B, L, width]."""

    def forward(self, features):
        return super().forward(features.transpose(1, 2)).transpose(1, 2)


def test_the_trained_run_is_evaluated_by_its_average(tmp_path):
    done = asked(tmp_path / "run", EMA(log_raw=True))
    start(done)
    live = {**done.live, "live:callback0": EMA(log_raw=True)}
    found = evaluate(tmp_path / "run", "val", Request((), live, done.registry, report=done.report))
    assert found["val/loss"] == pytest.approx(min(logged(tmp_path / "run", "val/loss")), rel=1e-6)


def test_it_is_refused_beside_an_optimizer_that_averages(tmp_path):
    request = tiny_request({"out": str(tmp_path / "run"), "optimizer": "schedule-free-adamw", "callback": ["ema"]})
    with pytest.raises(UsageError, match=r"callback ema and optimizer schedule-free-adamw both average") as caught:
        start(request)
    assert "--callback no:ema" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_power_needs_a_warm_up():
    with pytest.raises(UsageError, match="a power of its warm-up, and no warm-up"):
        EMA(warmup=False, power=0.75)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"warmup": False}, "100 % of the average are the initial weights still after all 10 steps"),
        ({"warmup": False, "decay": 0.7}, None),
        ({}, None),
    ],
)
def test_a_training_too_short_for_the_decay_is_warned_of(caplog, options, text):
    with caplog.at_level(logging.WARNING):
        EMA(**options).on_run_start(fake_run({}))
    assert (text in caplog.text) if text else not caplog.records

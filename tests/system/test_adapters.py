"""Runs whose adapter stores what it learned apart from the model: checkpoints, base, resume, refusals."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from trainkit import hookimpl
from trainkit.api import Request, evaluate, predict, resume, start
from trainkit.errors import CheckpointError, PluginError, ResourceError
from trainkit.plan import Stage
from trainkit.testing.resuming import StopAt, assert_resumes
from trainkit.testing.tiny import TinyTask, tiny_request, tiny_run

LORA = {"adapter": "lora", "adapter.r": 2, "optimizer.lr": 0.01}
FILE = "adapter_model.safetensors"


class Normed(TinyTask):
    """The tiny task on a model with running averages and a weight that two parts share."""

    def build_model(self):
        model = super().build_model()
        model.mix.append(Tokenwise(self.width))
        model.head.weight = model.embedding.weight
        return model


class Tokenwise(nn.BatchNorm1d):
    """Normalise the features of [B, L, width]."""

    def forward(self, features):
        return super().forward(features.transpose(1, 2)).transpose(1, 2)


def asked(out, settings=None, **arguments):
    return tiny_request({"out": str(out), **LORA, **(settings or {})}, **arguments)


def newest(out):
    return max((out / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def test_a_checkpoint_holds_the_adapter_and_the_run_holds_the_base_once(tmp_path):
    built = tiny_run(LORA)
    start(asked(tmp_path / "run"))
    folder = newest(tmp_path / "run")
    names = {path.name for path in folder.iterdir()}
    assert {FILE, "adapter_config.json", "config.json"} <= names
    assert "model.safetensors" not in names
    prefix = "base_model.model."
    assert set(load_file(folder / FILE)) == {
        f"{prefix}{layer}.lora_{m}.weight" for layer in ("mix.0", "head") for m in "AB"
    }
    base = load_file(tmp_path / "run/base/model.safetensors")
    assert set(base) == {"embedding.weight", "mix.0.weight", "mix.0.bias", "head.weight", "head.bias"}
    assert all(torch.equal(tensor, built.base.weights()[name]) for name, tensor in base.items())
    content = (tmp_path / "run/base/model.safetensors").read_bytes()
    recorded = json.loads((tmp_path / "run/base/base.json").read_text())
    assert recorded["sha256"] == hashlib.sha256(content).hexdigest()
    facts = json.loads((folder / "manifest.json").read_text())["content"]["facts"]
    assert facts["base"] == recorded["sha256"]


def test_the_summary_proves_that_the_adapters_learned(tmp_path):
    found = start(asked(tmp_path / "run")).summary["summaries"]["adapter"]
    assert found["unlearned"] == []
    assert found["trainable_parameters"] == 2 * (16 + 16) + 2 * (16 + 13)


def test_the_model_card_says_where_the_weights_are(tmp_path):
    start(asked(tmp_path / "run"))
    card = (tmp_path / "run/README.md").read_text()
    assert f"`checkpoints/checkpoint-*/{FILE}` and those of the model that they change `base/model.safetensors`" in card
    start(tiny_request({"out": str(tmp_path / "full")}))
    assert "`checkpoints/checkpoint-*/model.safetensors`; " in (tmp_path / "full/README.md").read_text()


def test_an_adapter_that_learned_nothing_is_told(tmp_path, caplog):
    result = start(asked(tmp_path / "run", {"optimizer": "sgd", "optimizer.lr": 1e-45}))
    assert result.summary["summaries"]["adapter"]["unlearned"] == ["mix.0", "head"]
    assert "2 of 2 adapters learned nothing" in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"adapter.dora": True, "adapter.modules_to_save": ["head"], "checkpoint.background": False},
    ],
)
def test_a_resumed_run_is_the_same_to_the_bit(tmp_path, settings):
    assert_resumes(tmp_path, list, [3, 10], {**LORA, **settings}, stages=[Stage(epochs=3)])


def test_running_averages_of_a_frozen_model_resume_too(tmp_path):
    straight = assert_resumes(tmp_path, list, [7], LORA, stages=[Stage(epochs=2)], task=Normed())
    base = load_file(straight / "base/model.safetensors")
    assert "head.weight" not in base  # Stored once, under the first of its names.
    kept = load_file(newest(straight) / "state.safetensors")
    assert not torch.equal(kept["buffers.mix.3.running_mean"], base["mix.3.running_mean"])


def test_a_run_without_a_checkpoint_yet_begins_anew_on_its_base(tmp_path):
    stopped = asked(tmp_path / "run")
    stopped = Request(stopped.layers, stopped.live, stopped.registry, [("stop", StopAt(2))], report=stopped.report)
    start(stopped)
    shutil.rmtree(newest(tmp_path / "run"))
    fresh = asked(tmp_path / "run")
    resume(tmp_path / "run", Request((), fresh.live, fresh.registry, report=fresh.report))
    start(asked(tmp_path / "straight"))
    one, other = (load_file(newest(tmp_path / name) / FILE) for name in ("run", "straight"))
    assert all(torch.equal(one[name], other[name]) for name in other)


def from_start(checkpoint):
    return {"adapter": "lora", "optimizer.lr": 0.01, "adapter.start": str(checkpoint)}


def test_a_run_from_an_adapter_resumes_to_the_bit(tmp_path):
    start(asked(tmp_path / "first"))
    settings = from_start(newest(tmp_path / "first"))
    straight = assert_resumes(tmp_path, list, [3, 7], settings, stages=[Stage(epochs=2)])
    begun, first = (load_file(newest(out) / FILE) for out in (straight, tmp_path / "first"))
    assert {name: tensor.shape for name, tensor in begun.items()} == {n: tensor.shape for n, tensor in first.items()}
    assert not any(torch.equal(begun[name], first[name]) for name in first)


def test_a_run_that_has_no_checkpoint_begins_with_its_start_again(tmp_path):
    start(asked(tmp_path / "first"))
    settings = from_start(newest(tmp_path / "first"))
    stopped = asked(tmp_path / "run", settings)
    start(Request(stopped.layers, stopped.live, stopped.registry, [("stop", StopAt(2))], report=stopped.report))
    shutil.rmtree(newest(tmp_path / "run"))
    fresh = asked(tmp_path / "run", settings)
    resume(tmp_path / "run", Request((), fresh.live, fresh.registry, report=fresh.report))
    start(asked(tmp_path / "straight", settings))
    one, other = (load_file(newest(tmp_path / name) / FILE) for name in ("run", "straight"))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_range_test_of_rates_begins_with_the_start_too(tmp_path):
    start(asked(tmp_path / "first"))
    adapters = []

    class Watch:
        @hookimpl
        def on_run_start(self, run):
            adapters.append({n: t.detach().clone() for n, t in run.components["adapter"].weights(run.model).items()})

    settings = from_start(newest(tmp_path / "first")) | {"lr_find": True}
    request = asked(tmp_path / "run", settings)
    start(Request(request.layers, request.live, request.registry, [("watch", Watch())], report=lambda line: None))
    first = load_file(newest(tmp_path / "first") / FILE)
    assert adapters
    assert all(torch.equal(found[name], first[name]) for found in adapters for name in first)


def quiet(request):
    return Request((), request.live, request.registry, report=request.report)


def test_best_evaluate_and_predict_take_the_adapter(tmp_path):
    request = asked(tmp_path / "run")
    result = start(request)
    found = evaluate(tmp_path / "run", "val", quiet(request))
    assert found["val/loss"] == pytest.approx(result.summary["best"], rel=1e-6)
    (tmp_path / "in.txt").write_text("1 2 3\n4 5 6\n")
    answers = predict(tmp_path / "run", [tmp_path / "in.txt"], quiet(request))
    assert len(answers.items) == 2
    again = resume(tmp_path / "run", quiet(request))
    pairs = zip(again.model.parameters(), result.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_an_averaged_adapter(tmp_path):
    settings = {**LORA, "callback": ["no:tensorboard", "ema"], "callback.ema.decay": 0.8}
    straight = assert_resumes(tmp_path, list, [5, 11], settings, stages=[Stage(epochs=3)])
    state = load_file(newest(straight) / "state.safetensors")
    saved = load_file(newest(straight) / FILE)["base_model.model.mix.0.lora_B.weight"]
    trained = state["components.callback ema.trained.mix.0.lora_B"]
    assert not torch.equal(saved, trained)
    assert not any("embedding" in name for name in state)


def test_an_adapter_learns_in_every_stage_and_while_parts_are_unfrozen(tmp_path):
    settings = {
        "adapter.modules_to_save": ["head"],
        "adapter.targets": ["0"],
        "callback": ["no:tensorboard", "unfreezing"],
    }
    seen = []

    class Watch:
        @hookimpl
        def on_step(self, run):
            seen.append({name for name, parameter in run.learnable.items() if parameter.requires_grad})

    stages = [Stage(name="head", epochs=2, trainable=("head.*",)), Stage(name="none", epochs=1, trainable=("mix.*",))]
    start(asked(tmp_path / "run", settings, callbacks=[Watch()], stages=stages))
    adapters = {"mix.0.lora_A", "mix.0.lora_B"}
    head = {"head.weight", "head.bias"}
    assert seen[0] == adapters | head
    assert seen[-1] == adapters


def refused(tmp_path, error, match):
    request = asked(tmp_path / "run")
    with pytest.raises(error, match=match) as caught:
        evaluate(tmp_path / "run", "val", quiet(request))
    return caught.value


def test_an_adapter_of_another_base_is_refused_by_its_fingerprint(tmp_path):
    start(asked(tmp_path / "run"))
    start(asked(tmp_path / "other", {"seed": 5}))
    shutil.rmtree(tmp_path / "run/base")
    shutil.copytree(tmp_path / "other/base", tmp_path / "run/base")
    error = refused(tmp_path, CheckpointError, "this adapter belongs to another base model")
    facts = json.loads((newest(tmp_path / "run") / "manifest.json").read_text())["content"]["facts"]
    assert facts["base"][:12] in error.why
    assert json.loads((tmp_path / "other/base/base.json").read_text())["sha256"][:12] in error.why


def test_an_adapter_of_another_shape_is_refused(tmp_path):
    start(asked(tmp_path / "run"))
    start(asked(tmp_path / "other", {"adapter.r": 4}))
    shutil.rmtree(tmp_path / "run/checkpoints")
    shutil.copytree(tmp_path / "other/checkpoints", tmp_path / "run/checkpoints")
    error = refused(tmp_path, CheckpointError, "the saved tensors do not fit: 0 of 4 do")
    assert "mix.0.lora_A.weight is F32[4, 16], needed F32[2, 16]" in error.why


def test_a_damaged_or_missing_base_is_told(tmp_path):
    start(asked(tmp_path / "run"))
    path = tmp_path / "run/base/model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    refused(tmp_path, CheckpointError, "the base model of a run is damaged")
    shutil.rmtree(tmp_path / "run/base")
    error = refused(tmp_path, CheckpointError, "a file cannot be read")
    assert "base.json" in error.where


def test_a_checkpoint_of_a_whole_model_is_no_adapter(tmp_path):
    start(asked(tmp_path / "run"))
    start(tiny_request({"out": str(tmp_path / "other")}))
    shutil.rmtree(tmp_path / "run/checkpoints")
    shutil.copytree(tmp_path / "other/checkpoints", tmp_path / "run/checkpoints")
    error = refused(tmp_path, CheckpointError, f"the checkpoint has no {FILE}")
    assert "model.safetensors" in error.why


def test_a_disk_that_refuses_the_base_ends_the_run(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainkit.base.write_base", full)
    with pytest.raises(ResourceError, match="a file cannot be written") as caught:
        start(asked(tmp_path / "run"))
    assert str(tmp_path / "run/base") in caught.value.where


class Forgetful:
    """An adapter whose weights leave out the bias, which learns."""

    weights_file = FILE

    def __call__(self, model):
        return model

    def weights(self, model):
        return {name: tensor for name, tensor in model.named_parameters() if "bias" not in name}


def test_an_adapter_that_would_lose_what_it_learns_is_refused():
    with pytest.raises(PluginError, match="the adapter would lose what it learns: 2 of 5 parameters"):
        tiny_run(adapter=Forgetful())


class Described(TinyTask):
    files = {"words.txt": "one two\n", "blob.bin": b"\x00\x01"}

    def checkpoint_files(self, model):
        return self.files


def test_files_of_a_task_stand_beside_the_weights(tmp_path):
    request = asked(tmp_path / "run", task=Described())
    start(request)
    for folder in (newest(tmp_path / "run"), tmp_path / "run/base"):
        assert (folder / "words.txt").read_text() == "one two\n"
        assert (folder / "blob.bin").read_bytes() == b"\x00\x01"
    (newest(tmp_path / "run") / "words.txt").write_text("changed\n")
    with pytest.raises(CheckpointError, match="a checkpoint's file is damaged"):
        evaluate(
            tmp_path / "run",
            "val",
            quiet(request),
            checkpoint="last-of-all" if False else newest(tmp_path / "run").name,
        )


@pytest.mark.parametrize("name", ["state.json", "../escape", "adapter_model.safetensors"])
def test_files_that_would_hide_ours_are_refused(tmp_path, name):
    class Bad(Described):
        files = {name: "x"}

    with pytest.raises(PluginError, match="the task gives a checkpoint the file"):
        start(asked(tmp_path / "run", task=Bad()))


def test_weights_that_are_shared_are_stored_once(tmp_path):
    class Tied(TinyTask):
        def build_model(self):
            model = super().build_model()
            model.head.weight = model.embedding.weight
            return model

    start(tiny_request({"out": str(tmp_path / "run")}, task=Tied()))
    assert "head.weight" not in load_file(newest(tmp_path / "run") / "model.safetensors")

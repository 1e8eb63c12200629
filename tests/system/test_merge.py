"""`trainkit merge` and `trainkit export`: what an adapter learned in the weights of the model, as a user types it."""

from __future__ import annotations

import json

import pytest
import torch
import trainkit
from safetensors.torch import load_file
from trainkit.api import Request, export, merge, start
from trainkit.errors import ResourceError, RunFailed, UsageError
from trainkit.testing import tiny
from trainkit.testing.tiny import TinyTask, tiny_request

LORA = {"adapter": "lora", "adapter.r": 2, "optimizer.lr": 0.01}
TASK = ("--task", f"{tiny.__file__}:TinyTask", "--strategy", "baseline", "--callback", "no:tensorboard")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a run of an adapter, `lora`, and of one of the whole model, `full`."""
    folder = tmp_path_factory.mktemp("trained")
    common = {"task": f"{tiny.__file__}:TinyTask", "strategy": "baseline", "callback": "no:tensorboard"}
    for name, settings in (("lora", {"adapter.r": 2}), ("full", {})):
        out = {"out": str(folder / name), "loop.epochs": 2, "device": "cpu", **settings}
        trainkit.run(**common, adapter=name, settings=out)
    return folder


def weights_of(path):
    model = TinyTask().build_model()
    model.load_state_dict(load_file(path / "model.safetensors"))
    return model.eval()


def test_merge_compares_and_writes_nothing_unless_asked(cli, trained):
    before = sorted(path.name for path in (trained / "lora").iterdir())
    done = cli("merge", trained / "lora")
    assert done.code == 0
    assert "merged - adapted" in done.out
    assert "unlearned               none" in done.out
    assert sorted(path.name for path in (trained / "lora").iterdir()) == before


def test_a_merged_model_is_the_adapted_one_without_an_adapter(cli, trained, tmp_path):
    done = cli("merge", trained / "lora", "--to", "merged", "--json")
    found = json.loads(done.out)
    assert found["split"] == "val"
    assert found["merged_minus_unmerged"] < 1e-5 < found["adapted_minus_base"]
    assert found["adapter"]["unlearned"] == []
    assert found["exported"]["files"]["model.safetensors"] == (tmp_path / "merged/model.safetensors").stat().st_size
    merged, base = weights_of(tmp_path / "merged"), weights_of(trained / "lora/base")
    changed = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, base.state_dict()[name])}
    assert changed == {"mix.0.weight", "head.weight"}
    again = trainkit.resume(trained / "lora").model.eval()
    tokens = torch.arange(6).view(1, 6)
    torch.testing.assert_close(merged(tokens)["logits"], again(tokens)["logits"], rtol=1e-5, atol=1e-5)


def test_export_works_an_adapter_in_and_needs_no_data(cli, trained, tmp_path):
    assert cli("merge", trained / "lora", "--to", "merged").code == 0
    done = cli("export", trained / "lora", "--to", "new/exported")
    assert done.code == 0
    assert "model.safetensors" in done.out
    assert {path.name for path in (tmp_path / "new/exported").iterdir()} == {"model.safetensors", "config.json"}
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("merged", "new/exported"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_export_of_a_whole_model_is_its_checkpoint(cli, trained, tmp_path):
    found = json.loads(cli("export", trained / "full", "--to", "out", "--checkpoint", "last", "--json").out)
    saved = load_file(trained / f"full/checkpoints/checkpoint-{found['step']}/model.safetensors")
    exported = load_file(tmp_path / "out/model.safetensors")
    assert saved.keys() == exported.keys()
    assert all(torch.equal(saved[name], exported[name]) for name in saved)


@pytest.mark.parametrize(
    ("command", "arguments", "text", "code"),
    [
        ("merge", ("full",), "adapter full leaves nothing to merge", 2),
        ("merge", ("lora", "--to", "lora"), "the folder for the model is not empty", 2),
        ("export", ("lora", "--to", "lora"), "the folder for the model is not empty", 2),
        ("export", ("lora", "--to", "lora/status.json"), "the folder for the model is no folder", 2),
        ("export", ("lora", "--to", "x", "--checkpoint", "checkpoint-77"), "there is no checkpoint 'checkpoint-77'", 2),
        ("export", ("nowhere", "--to", "x"), "this is not a run directory", 6),
        ("export", ("lora",), "Missing option '--to'", 2),
    ],
)
def test_what_cannot_be_done_is_said(cli, trained, tmp_path, command, arguments, text, code):
    given = [trained / argument if i == 0 or "/" in argument or argument == "lora" else argument
             for i, argument in enumerate(arguments)]  # fmt: skip
    done = cli(command, *given)
    assert done.code == code
    assert text in done.err
    assert list(tmp_path.iterdir()) == []


def asked(out, settings=None, **arguments):
    return tiny_request({"out": str(out), **LORA, **(settings or {})}, **arguments)


def quiet(request):
    return Request((), request.live, request.registry, report=request.report)


def test_an_adapter_that_changes_nothing_is_refused(tmp_path):
    request = asked(tmp_path / "run", {"optimizer": "sgd", "optimizer.lr": 1e-45})
    start(request)
    with pytest.raises(UsageError, match="the adapter changes nothing") as caught:
        merge(tmp_path / "run", tmp_path / "to", quiet(request))
    assert "unlearned" in caught.value.why
    assert not (tmp_path / "to").exists()


def test_a_merge_that_goes_wrong_writes_nothing(tmp_path, monkeypatch):
    request = asked(tmp_path / "run")
    start(request)

    def wrong(model):
        with torch.no_grad():
            model.head.weight += 0.1
        return model

    monkeypatch.setattr("trainkit.merging.merged_model", lambda run: wrong(run.components["adapter"].merged(run.model)))
    with pytest.raises(RunFailed, match="the merged model answers otherwise"):
        merge(tmp_path / "run", tmp_path / "to", quiet(request))
    assert not (tmp_path / "to").exists()


class Writes(TinyTask):
    """A task that writes its models itself."""

    def export(self, model, directory):
        assert type(model.head) is torch.nn.Linear
        path = directory / "mine.txt"
        path.write_text("written by the task")
        path.chmod(0o600)


def test_a_task_exports_itself(tmp_path):
    request = asked(tmp_path / "run", task=Writes())
    start(request)
    done = export(tmp_path / "run", tmp_path / "to", quiet(request))
    assert done.files == {"mine.txt": 19}
    assert (tmp_path / "to/mine.txt").stat().st_mode & 0o777 == (tmp_path / "to").stat().st_mode & 0o666


def test_an_adapter_that_cannot_be_merged_is_not_exported(tmp_path):
    class Bias:
        weights_file = "bias.safetensors"

        def __call__(self, model):
            for name, parameter in model.named_parameters():
                parameter.requires_grad_("bias" in name)
            return model

        def weights(self, model):
            return {name: tensor for name, tensor in model.named_parameters() if "bias" in name}

    request = tiny_request({"out": str(tmp_path / "run")}, adapter=Bias())
    start(request)
    with pytest.raises(UsageError, match="cannot be worked into the weights"):
        export(tmp_path / "run", tmp_path / "to", quiet(request))


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    request = asked(tmp_path / "run")
    start(request)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainkit.exporting.tensorfile.write", full)
    with pytest.raises(ResourceError, match="a file cannot be written"):
        export(tmp_path / "run", tmp_path / "to", quiet(request))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

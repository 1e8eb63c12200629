"""Beginning with an adapter that exists: what peft saved, and what a checkpoint of trainkit holds."""

from __future__ import annotations

import json
import re
import shutil
import signal

import pytest
import torch
import trainkit
from safetensors.torch import load_file, save_file
from trainkit import UsageError
from trainkit_adapter_lora.lora import LoRA, layers_of

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
peft = pytest.importorskip("peft", reason="peft is not installed")

# peft asks transformers by names that transformers means to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`.*` is deprecated:FutureWarning")

SMALL = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "vocab_size": 40}
BATCH = {"input_ids": torch.arange(4, 16).view(2, 6), "decoder_input_ids": torch.arange(20, 28).view(2, 4)}


def small_t5(**changed):
    torch.manual_seed(0)
    config = transformers.T5Config(**{**SMALL, "decoder_start_token_id": 0, **changed})
    return transformers.T5ForConditionalGeneration(config).eval()


def loaded(folder):
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()


def logits(model):
    with torch.no_grad():
        return model.eval()(**BATCH).logits


def theirs_on(base, folder, **options):
    """Return peft's model on a saved base, with an adapter as after some training, which is saved."""
    config = peft.LoraConfig(**{"r": 3, "lora_alpha": 12, "target_modules": ["q", "v"], **options})
    model = peft.get_peft_model(loaded(base), config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    model.save_pretrained(folder)
    return model


@pytest.fixture
def base(tmp_path):
    small_t5().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(base, tmp_path):
    theirs_on(base, tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"target_modules": r"decoder\..*\.(q|wo)"},
        {"target_modules": ["wi", "SelfAttention.o"], "lora_alpha": 5},
        {"modules_to_save": ["decoder.final_layer_norm"]},
    ],
)
def test_a_model_begins_as_peft_left_it(base, tmp_path, options):
    theirs = theirs_on(base, tmp_path / "adapter", **options)
    ours = LoRA(start=str(tmp_path / "adapter"))(loaded(base))
    assert not torch.allclose(logits(ours), logits(loaded(base)), atol=1e-3)
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"use_dora": True, "use_rslora": True, "modules_to_save": ["decoder.final_layer_norm"]}]
)
def test_what_follows_makes_the_same_layers_without_the_folder(base, tmp_path, options):
    theirs_on(base, tmp_path / "adapter", **options)
    first = LoRA(start=str(tmp_path / "adapter"))
    names = list(first.weights(first(loaded(base))))
    settled = first.settled()
    assert (settled["r"], settled["alpha"], settled["targets"]) == (3, 12.0, ["q", "v"])
    again = LoRA(**settled)
    assert list(again.weights(again(loaded(base)))) == names
    assert again.settled() == {}
    assert (first.alpha, first.rslora, first.dora) == (again.alpha, again.rslora, again.dora)


def test_options_that_agree_are_taken_and_dropout_is_the_run_s(base, adapter):
    ours = LoRA(start=str(adapter), r=3, alpha=12.0, targets=("*.q", "v"), rslora=False, dropout=0.5)
    found = layers_of(ours(loaded(base)))
    assert len(found) == 12
    assert {layer.dropout for layer in found.values()} == {0.5}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"r": 16}, "adapter.r is 16, the adapter to start from has 3"),
        ({"alpha": 3.0}, "adapter.alpha is 3.0, the adapter to start from has 12.0"),
        ({"dora": True}, "adapter.dora is true, the adapter to start from has false"),
        ({"targets": ("q",)}, 'adapter.targets is ["q"], the adapter to start from has decoder.block.0'),
        (
            {"modules_to_save": ("final_layer_norm",)},
            'adapter.modules_to_save is ["final_layer_norm"], the adapter to start from has nothing',
        ),
    ],
)
def test_options_that_disagree_are_refused(base, adapter, options, said):
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        LoRA(start=str(adapter), **options)(loaded(base))
    assert str(adapter) in str(caught.value)


def test_a_folder_that_is_no_adapter(base, adapter, tmp_path):
    def refusal(folder):
        with pytest.raises(UsageError, match=r"adapter\.start: no adapter can be taken from") as caught:
            LoRA(start=str(folder))(loaded(base))
        return str(caught.value)

    assert "there is no such folder" in refusal(tmp_path / "nowhere")
    assert "it has no adapter_config.json" in refusal(base)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    assert f"as {tmp_path / 'run/checkpoints/checkpoint-120'}" in refusal(tmp_path / "run")
    content = (adapter / "adapter_model.safetensors").read_bytes()
    (adapter / "adapter_model.safetensors").write_bytes(content[:-3])
    assert "put a copy back" in refusal(adapter)
    (adapter / "adapter_model.safetensors").unlink()
    assert "it has no adapter_model.safetensors" in refusal(adapter)
    (adapter / "adapter_model.bin").write_bytes(b"")
    assert "is a pickle" in refusal(adapter)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("peft_type", "IA3", "of the kind IA3"),
        ("rank_pattern", {"q": 8}, "has rank_pattern {'q': 8}"),
        ("lora_bias", True, "has lora_bias True"),
        ("init_lora_weights", "pissa", "has init_lora_weights pissa"),
        ("r", "three", "r is no whole number"),
        ("lora_alpha", None, "put a copy back"),
    ],
)
def test_an_adapter_that_is_more_than_matrices(base, adapter, field, value, said):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(UsageError, match="no adapter can be taken from") as caught:
        LoRA(start=str(adapter))(loaded(base))
    assert said in str(caught.value)


def test_names_and_shapes_that_do_not_fit(base, adapter, tmp_path):
    def refusal(model):
        with pytest.raises(UsageError, match="the adapter to start from does not fit the model") as caught:
            LoRA(start=str(adapter), base=str(base))(model)
        return str(caught.value)

    assert "lora_A.weight is [3, 16], needed [3, 20]" in refusal(small_t5(d_model=20))
    assert "has no linear layer decoder.block.1.layer.0.SelfAttention.q" in refusal(small_t5(num_layers=1))
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = "base_model.model.encoder.block.0.layer.0.SelfAttention.q.lora_B.weight"
    other = tensors | {name.replace("lora_B", "lora_C"): tensors[name]}
    save_file({key: value for key, value in other.items() if key != name}, adapter / "adapter_model.safetensors")
    why = refusal(loaded(base))
    assert f"missing in the file: {name}" in why
    assert "unexpected in the file" in why


def test_another_base_is_refused_by_its_name(base, adapter, tmp_path):
    small_t5(vocab_size=41).save_pretrained(tmp_path / "other")
    start = str(adapter)
    with pytest.raises(UsageError, match="belongs to another base model") as caught:
        LoRA(start=start)(loaded(tmp_path / "other"))
    assert f"it was trained on '{base}', the model of this run is '{tmp_path / 'other'}'" in str(caught.value)
    with pytest.raises(UsageError, match="built anew"):
        LoRA(start=start)(small_t5())
    with pytest.raises(UsageError, match=f"names its base '{base}', and adapter.base is 't5-small'"):
        LoRA(start=start, base="t5-small")(loaded(base))


def test_the_same_base_under_another_name(base, adapter, tmp_path):
    expected = logits(LoRA(start=str(adapter))(loaded(base)))
    shutil.copytree(base, tmp_path / "copy")
    torch.testing.assert_close(logits(LoRA(start=str(adapter))(loaded(tmp_path / "copy"))), expected)
    # What is not there can be compared by nobody but the user.
    name = str(base)
    base.rename(tmp_path / "gone")
    with pytest.raises(UsageError, match=f"--set adapter.base={re.escape(name)}"):
        LoRA(start=str(adapter))(loaded(tmp_path / "copy"))
    torch.testing.assert_close(logits(LoRA(start=str(adapter), base=name)(loaded(tmp_path / "copy"))), expected)


def test_an_adapter_that_names_no_base_is_taken_with_a_warning(base, adapter, caplog):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": None}))
    LoRA(start=str(adapter))(loaded(base))
    assert "does not name its base" in caplog.text


SETTINGS = {
    "loop.batch_size": 8, "optimizer.lr": 3e-3, "device": "cpu", "threads": 1, "evaluate.train_samples": 0,
    "task.max_new_tokens": 8, "checkpoint.every_steps": 3,
}  # fmt: skip


class StopsAt:
    """End a run as a signal does, at a step."""

    def __init__(self, step):
        self.step = step

    @trainkit.hookimpl
    def on_step(self, run):
        if run.moment.step == self.step:
            run.signal = signal.SIGUSR1


def run(out, *listeners, **settings):
    return trainkit.run(
        task="seq2seq",
        adapter="lora",
        strategy="baseline",
        callback=["no:tensorboard", "no:sample-outputs"],
        listeners=[("listener", each) for each in listeners],
        settings={**SETTINGS, "out": str(out), **settings},
    )


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Return the run directory of an adapter on a model built from a size: what a second run begins with."""
    out = tmp_path_factory.mktemp("first") / "run"
    run(out, **{"task.size": "micro", "loop.max_steps": 6, "adapter.r": 4, "adapter.targets": ["q", "wo"]})
    return out


def on(first, checkpoint="checkpoint-6"):
    return {"task.model": str(first / "base"), "adapter.start": str(first / "checkpoints" / checkpoint)}


def weights(out, step):
    return load_file(out / f"checkpoints/checkpoint-{step}/adapter_model.safetensors")


def test_a_run_begins_with_a_checkpoint_and_resumes_to_the_bit_without_it(first, tmp_path):
    run(tmp_path / "whole", **on(first), **{"loop.max_steps": 7})
    shutil.copytree(first, tmp_path / "theirs")
    start = on(tmp_path / "theirs")
    stopped = run(tmp_path / "killed", StopsAt(4), **start, **{"loop.max_steps": 7})
    assert stopped.status == "stopped"
    shutil.rmtree(start["adapter.start"])
    assert trainkit.resume(tmp_path / "killed").status == "done"
    expected = weights(tmp_path / "whole", 7)
    torch.testing.assert_close(weights(tmp_path / "killed", 7), expected, rtol=0, atol=0)
    assert expected.keys() == weights(first, 6).keys()
    assert not torch.equal(*(next(iter(found.values())) for found in (expected, weights(first, 6))))
    config = json.loads((tmp_path / "killed/checkpoints/checkpoint-7/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (4, 32.0, ["q", "wo"])


def test_a_checkpoint_that_changed_since_is_refused(first, tmp_path):
    shutil.copytree(first / "checkpoints/checkpoint-6", tmp_path / "copy")
    path = tmp_path / "copy/adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UsageError, match="its content is not what was written"):
        LoRA(start=str(tmp_path / "copy"))(loaded(first / "base"))


def test_the_first_step_is_that_of_the_adapter(first, tmp_path):
    class Watch:
        @trainkit.hookimpl
        def on_run_start(self, run):
            # Already loaded, before the first step.
            self.weights = {n: t.detach().clone() for n, t in run.components["adapter"].weights(run.model).items()}

    watch = Watch()
    run(tmp_path / "run", watch, **on(first), **{"loop.max_steps": 1})
    torch.testing.assert_close(watch.weights, weights(first, 6), rtol=0, atol=0)


def test_all_that_needs_no_data_needs_no_start(first, tmp_path):
    shutil.copytree(first, tmp_path / "theirs")
    start = on(tmp_path / "theirs")
    run(tmp_path / "run", **start, **{"loop.max_steps": 2})
    shutil.rmtree(start["adapter.start"])
    done = trainkit.merge(tmp_path / "run", tmp_path / "merged")
    assert done.learned > 0
    assert trainkit.evaluate(tmp_path / "run")
    shutil.rmtree(tmp_path / "theirs")
    assert trainkit.export(tmp_path / "run", tmp_path / "exported").step == 2


def test_a_run_from_peft_tells_where_its_options_are_from(first, tmp_path):
    theirs = peft.get_peft_model(loaded(first / "base"), peft.LoraConfig(r=2, target_modules=["v"], use_dora=True))
    theirs.save_pretrained(tmp_path / "adapter")
    settings = {"task.model": str(first / "base"), "adapter.start": str(tmp_path / "adapter"), "loop.max_steps": 2}
    run(tmp_path / "run", **settings)
    resolved = json.loads((tmp_path / "run/resolved.json").read_text())
    found = {name: resolved[f"adapter.{name}"][-1] for name in ("r", "alpha", "targets", "rslora", "dora")}
    values = {"r": 2, "alpha": 8.0, "targets": ["v"], "rslora": False, "dora": True}
    assert {name: entry["value"] for name, entry in found.items()} == values
    assert {entry["origin"] for entry in found.values()} == {str(tmp_path / "adapter")}
    asked = (tmp_path / "run/config.toml").read_text()
    assert "start = " in asked
    assert "alpha" not in asked


def test_another_base_is_refused_by_its_weights_before_anything_is_written(first, tmp_path):
    settings = {"task.size": "micro", "seed": 1, "loop.max_steps": 2}
    start = {"adapter.start": str(first / "checkpoints/checkpoint-6")}
    with pytest.raises(UsageError, match="belongs to another base model") as caught:
        run(tmp_path / "run", **start, **settings)
    assert "its base has the SHA-256" in str(caught.value)
    assert not (tmp_path / "run").exists()
    # The seed makes the same model anew, whatever it is called.
    assert run(tmp_path / "run", **start, **(settings | {"seed": 0})).status == "done"

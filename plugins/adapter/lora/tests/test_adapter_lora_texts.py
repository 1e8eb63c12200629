"""A text model with an adapter from run to export: what transformers and peft load at each station."""

from __future__ import annotations

import json

import pytest
import torch
import trainkit
from safetensors.torch import load_file
from trainkit.api import merge

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
peft = pytest.importorskip("peft", reason="peft is not installed")

# peft asks transformers by names that transformers means to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`.*` is deprecated:FutureWarning")

SETTINGS = {
    "task.size": "micro", "loop.max_steps": 12, "loop.batch_size": 8, "optimizer.lr": 3e-3, "device": "cpu",
    "threads": 1, "evaluate.train_samples": 0, "task.max_new_tokens": 8,
}  # fmt: skip


def trained(out, adapter, **settings):
    return trainkit.run(
        task="seq2seq",
        adapter=adapter,
        strategy="baseline",
        callback=["no:tensorboard", "no:sample-outputs"],
        settings={**SETTINGS, "out": str(out), **settings},
    )


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """Return the run directory of an adapter on a small T5."""
    out = tmp_path_factory.mktemp("lora") / "run"
    trained(out, "lora", **{"adapter.r": 4})
    return out


def newest(out):
    return max((out / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def batch(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    given = tokenizer(["the first of May", "12 June 1984"], return_tensors="pt", padding=True)
    labels = tokenizer(["1 May", "1984"], return_tensors="pt", padding=True)["input_ids"]
    return {**{name: given[name] for name in ("input_ids", "attention_mask")}, "decoder_input_ids": labels}


def logits(model, given):
    with torch.no_grad():
        return model.eval()(**given).logits


def loaded(folder):
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)


def test_peft_loads_a_checkpoint_onto_the_base(lora):
    given = batch(newest(lora))
    theirs = peft.PeftModel.from_pretrained(loaded(lora / "base"), newest(lora))
    ours = trainkit.resume(lora).model
    torch.testing.assert_close(logits(theirs, given), logits(ours, given), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits(loaded(lora / "base"), given), logits(ours, given), atol=1e-4)
    written = theirs.generate(**{name: given[name] for name in ("input_ids", "attention_mask")}, max_new_tokens=4)
    assert written.shape[0] == 2


def test_the_adapter_is_stored_in_place_of_the_model(lora):
    config = json.loads((newest(lora) / "adapter_config.json").read_text())
    assert (config["r"], config["target_modules"], config["task_type"]) == (4, ["q", "v"], "SEQ_2_SEQ_LM")
    assert len(load_file(newest(lora) / "adapter_model.safetensors")) == len(layers(lora)) * 2
    names = {path.name for path in newest(lora).iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json"} <= names
    assert "model.safetensors" not in names


def layers(out):
    found = json.loads((out / "results.json").read_text())["summaries"]["adapter"]
    assert found["unlearned"] == []
    assert found["targets"] == ["q", "v"]
    return range(found["layers"])


def test_the_embedding_that_all_share_is_stored_once(lora):
    names = load_file(lora / "base/model.safetensors").keys()
    assert {"shared.weight"} == {n for n in names if n.startswith(("shared", "lm_head")) or "embed_tokens" in n}


def test_the_merged_model_loads_and_writes(lora, tmp_path):
    done = merge(lora, tmp_path / "merged")
    assert done.merged < 1e-4 * done.largest < done.learned
    merged, given = loaded(tmp_path / "merged"), batch(tmp_path / "merged")
    ours = trainkit.resume(lora).model
    torch.testing.assert_close(logits(merged, given), logits(ours, given), rtol=1e-4, atol=1e-5)
    assert merged.generate(input_ids=given["input_ids"], max_new_tokens=4).shape[0] == 2


def test_a_whole_checkpoint_loads_and_so_does_its_export(tmp_path):
    result = trained(tmp_path / "run", "full")
    trainkit.export(tmp_path / "run", tmp_path / "out")
    given = batch(tmp_path / "out")
    expected = logits(result.model, given)
    for folder in (tmp_path / f"run/checkpoints/checkpoint-{result.summary['best_step']}", tmp_path / "out"):
        torch.testing.assert_close(logits(loaded(folder), given), expected, rtol=1e-5, atol=1e-6)
    # transformers 5 has no pipeline "text2text-generation" any more; generate is what it stood on.
    assert "text2text-generation" not in transformers.pipelines.PIPELINE_REGISTRY.get_supported_tasks()
    assert loaded(tmp_path / "out").generate(input_ids=given["input_ids"], max_new_tokens=4).shape[0] == 2


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("targets", "below"), [(["q", "v"], True), (["decoder.*.q", "decoder.*.v"], False)])
def test_nothing_is_kept_of_an_encoder_below_the_first_adapter(tmp_path, targets, below, checkpointing):
    seen = []

    class Watch:
        @trainkit.hookimpl
        def on_run_start(self, run):
            encoder = run.model.get_encoder()
            encoder.register_forward_hook(lambda _model, _inputs, found: seen.append((run.model.training, found[0])))

    settings = {"task.size": "micro", "loop.max_steps": 1, "loop.batch_size": 4, "device": "cpu", "threads": 1}
    settings |= {"adapter.targets": targets, "loop.gradient_checkpointing": checkpointing, "evaluate.final": False}
    result = trainkit.run(
        task="seq2seq",
        adapter="lora",
        strategy="baseline",
        callback=["no:tensorboard", "no:sample-outputs"],
        listeners=[("watch", Watch())],
        settings={**settings, "out": str(tmp_path / "run")},
    )
    assert {hidden.requires_grad for training, hidden in seen if training} == {below}
    assert result.summary["summaries"]["adapter"]["unlearned"] == []

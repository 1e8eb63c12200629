"""What peft makes of the files of an adapter, on a small T5: the same layers, the same outputs."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from trainkit_adapter_lora.lora import LoRA

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
peft = pytest.importorskip("peft", reason="peft is not installed")

# peft asks transformers by names that transformers means to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`.*` is deprecated:FutureWarning")

# As small as a T5 can be: an embedding that all share, and an output layer of its own where that is asked.
SMALL = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "vocab_size": 40}


def small_t5(**changed):
    torch.manual_seed(0)
    config = transformers.T5Config(**{**SMALL, "decoder_start_token_id": 0, **changed})
    return transformers.T5ForConditionalGeneration(config).eval()


BATCH = {"input_ids": torch.arange(4, 16).view(2, 6), "decoder_input_ids": torch.arange(20, 28).view(2, 4)}


def logits(model):
    with torch.no_grad():
        return model(**BATCH).logits


def learned(model):
    """Change everything that learns, as training does."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return model


def written(folder, adapter, model):
    for name, content in adapter.checkpoint_files(model).items():
        (folder / name).write_text(content)
    tensors = {name: tensor.detach().clone() for name, tensor in adapter.weights(model).items()}
    save_file(tensors, folder / adapter.weights_file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({}, {}),
        ({"rslora": True, "r": 4, "alpha": 8.0}, {}),
        ({"dora": True}, {}),
        ({"targets": ("wi", "wo", "SelfAttention.o")}, {}),
        ({"targets": ("encoder.block.1.layer.0.SelfAttention.q",)}, {}),
        ({"modules_to_save": ("decoder.final_layer_norm",)}, {"tie_word_embeddings": False}),
    ],
)
def test_peft_loads_what_was_stored(tmp_path, options, changed):
    small_t5(**changed).save_pretrained(tmp_path / "base")
    adapter = LoRA(**options)
    model = learned(adapter(small_t5(**changed)))
    assert not torch.allclose(logits(model), logits(small_t5(**changed)), atol=1e-3)
    written(tmp_path, adapter, model)
    base = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    torch.testing.assert_close(logits(theirs), logits(model), rtol=1e-5, atol=1e-5)
    assert theirs.generate(input_ids=BATCH["input_ids"], max_new_tokens=3).shape[0] == 2


def test_the_same_parameters_learn_as_with_peft():
    config = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.1, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")
    theirs = peft.get_peft_model(small_t5(), config)
    ours = LoRA()(small_t5())
    counts = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (theirs, ours)]
    assert counts[0] == counts[1] == 6 * 2 * 16 * 32


@pytest.mark.parametrize("dora", [False, True])
def test_gradients_are_peft_s(tmp_path, dora):
    adapter = LoRA(dora=dora, dropout=0.0)
    ours = learned(adapter(small_t5()))
    config = peft.LoraConfig(r=16, lora_alpha=32, target_modules=["q", "v"], use_dora=dora)
    theirs = peft.inject_adapter_in_model(config, small_t5())
    peft.set_peft_model_state_dict(
        theirs, {name.removeprefix("base_model.model."): tensor for name, tensor in adapter.weights(ours).items()}
    )
    for model in (ours, theirs):
        model(**BATCH).logits.square().mean().backward()
    found = {name: tensor.grad for name, tensor in adapter.weights(ours).items()}
    expected = [parameter.grad for parameter in theirs.parameters() if parameter.grad is not None]
    assert len(found) == len(expected) == (36 if dora else 24)
    for one, other in zip(sorted(map(sums, found.values())), sorted(map(sums, expected)), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def sums(gradient):
    return float(gradient.square().sum())


def test_the_config_names_what_peft_reads_and_nothing_else(tmp_path):
    adapter = LoRA()
    (tmp_path / "adapter_config.json").write_text(adapter.checkpoint_files(adapter(small_t5()))["adapter_config.json"])
    content = json.loads((tmp_path / "adapter_config.json").read_text())
    config = peft.LoraConfig.from_pretrained(tmp_path)
    assert content.keys() <= config.to_dict().keys()
    assert (config.r, config.lora_alpha, config.lora_dropout) == (16, 32, 0.1)
    assert config.target_modules == {"q", "v"}
    assert config.task_type == "SEQ_2_SEQ_LM"


def test_gradient_checkpointing_leaves_no_adapter_behind():
    plain, saving = (LoRA(dropout=0.0)(small_t5(dropout_rate=0.0)).train() for _ in range(2))
    saving.load_state_dict(plain.state_dict())
    saving.activation_checkpointing_enable()
    for model in (plain, saving):
        model(**BATCH, use_cache=False).logits.square().mean().backward()
    pairs = zip(plain.named_parameters(), saving.named_parameters(), strict=True)
    for (name, one), (_, other) in pairs:
        if one.requires_grad:
            assert other.grad is not None, name
            torch.testing.assert_close(one.grad, other.grad)
    assert all(bool((p.grad != 0).any()) for name, p in saving.named_parameters() if name.endswith("lora_B"))


def test_no_gradient_is_computed_below_the_first_adapter():
    outputs = LoRA(targets=("decoder.block.1.layer.0.SelfAttention.q",))(small_t5())(**BATCH)
    assert outputs.logits.requires_grad
    assert not outputs.encoder_last_hidden_state.requires_grad

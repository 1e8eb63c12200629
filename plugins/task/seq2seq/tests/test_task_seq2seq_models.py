"""Models: built by size, from a folder, and what is refused; writing, its randomness, and what transformers loads."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from trainkit.contracts import SAMPLE_ID
from trainkit.errors import UsageError
from trainkit_task_seq2seq.generation import Generation, written
from trainkit_task_seq2seq.sizes import SIZES, config_of
from trainkit_task_seq2seq.task import Seq2SeqTask
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
)

MICRO = {"size": "micro", "vocab_size": 300}


def fitted(**options):
    task = Seq2SeqTask(**{**MICRO, "max_new_tokens": 8, **options})
    splits = task.read(None, 0)
    task.fit(splits.train)
    torch.manual_seed(0)
    return task, splits, task.build_model().eval()


def batch_of(task, split, rows=(0, 1, 2)):
    return {**task.collate(split.__getitems__(list(rows))), SAMPLE_ID: torch.tensor(rows)}


@pytest.fixture(scope="module")
def ready():
    return fitted()


@pytest.fixture(scope="module")
def folder(ready, tmp_path_factory):
    task, _, model = ready
    path = tmp_path_factory.mktemp("model") / "t5"
    task.export(model, path)
    return path


class TestSizes:
    @pytest.mark.parametrize(
        ("name", "millions"), [("micro", 0.198), ("tiny", 1.9), ("mini", 9.4), ("small", 60.5), ("base", 222.9)]
    )
    def test_have_the_parameters_of_their_shapes(self, name, millions):
        size = SIZES[name]
        with torch.device("meta"):
            model = AutoModelForSeq2SeqLM.from_config(config_of(size, size.vocab_size, 0, 1, 0.1))
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)

    def test_logits_are_those_of_transformers_own_forward(self, ready):
        task, splits, model = ready
        batch = batch_of(task, splits.train)
        with torch.no_grad():
            own = task.forward(model, batch)
            theirs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"])
        assert set(own) == {"logits"}
        assert torch.equal(own["logits"], theirs.logits)

    def test_dropout_is_the_models(self):
        _, _, model = fitted(dropout=0.3)
        assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}


class TestFolder:
    def test_its_weights_and_tokenizer_are_taken(self, ready, folder):
        first, splits, model = ready
        task = Seq2SeqTask(model=str(folder))
        task.read(None, 0)
        task.fit(splits.train)
        loaded = task.build_model()
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
        assert task.tokens.fingerprint == first.tokens.fingerprint
        assert task.defaults["optimizer.lr"] < first.defaults["optimizer.lr"]

    def test_transformers_loads_what_is_exported(self, ready, folder):
        task, splits, model = ready
        batch = batch_of(task, splits.train)
        loaded, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        with torch.no_grad():
            assert torch.equal(task.forward(loaded.eval(), batch)["logits"], task.forward(model, batch)["logits"])
        ids = tokenizer(batch["inputs"], padding=True, return_tensors="pt")
        assert torch.equal(ids["input_ids"], batch["input_ids"])
        assert torch.equal(ids["attention_mask"], batch["attention_mask"])
        text = tokenizer.decode(loaded.generate(**ids, max_new_tokens=4)[0], skip_special_tokens=True)
        assert isinstance(text, str)

    def test_no_bar_of_transformers_is_drawn(self, ready, folder, tmp_path, capfd):
        from transformers.utils import logging

        before = logging.is_progress_bar_enabled()
        task, _, model = ready
        task.export(model, tmp_path)
        task = Seq2SeqTask(model=str(folder))
        task.fit(task.read(None, 0).train)
        task.build_model()
        assert "%|" not in "".join(capfd.readouterr())
        assert logging.is_progress_bar_enabled() == before

    def test_a_state_needs_no_folder(self, folder, tmp_path):
        gone = tmp_path / "gone"
        gone.mkdir()
        for path in folder.iterdir():
            (gone / path.name).write_bytes(path.read_bytes())
        task = Seq2SeqTask(model=str(gone))
        task.fit(task.read(None, 0).train)
        state = json.loads(json.dumps(task.state_dict()))
        for path in gone.iterdir():
            path.unlink()
        again = Seq2SeqTask(model=str(gone))
        again.load_state_dict(state)
        assert again.build_model().config.to_dict() == task.config.to_dict()
        assert again.state_dict() == state

    def test_another_family_starts_and_ends_its_own_way(self, ready, tmp_path):
        task, _, _ = ready
        config = BartConfig(
            vocab_size=300, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, pad_token_id=0, bos_token_id=2,
            eos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=1, max_position_embeddings=64,
        )  # fmt: skip
        BartForConditionalGeneration(config).save_pretrained(tmp_path)
        for name, text in task.tokens.files.items():
            (tmp_path / name).write_text(text)
        bart = Seq2SeqTask(model=str(tmp_path), dropout=0.25, max_new_tokens=5)
        splits = bart.read(None, 0)
        bart.fit(splits.train)
        model, batch = bart.build_model().eval(), batch_of(bart, splits.train)
        assert model.config.dropout == 0.25
        # It has 64 places, whatever the options allow.
        assert (bart.limits.input, bart.limits.target) == (64, 64)
        expected = model.prepare_decoder_input_ids_from_labels(batch["labels"])
        assert torch.equal(batch["decoder_input_ids"], expected)
        assert torch.isfinite(bart.forward(model, batch)["logits"]).all()
        assert len(bart.predict(model, batch, {})["texts"]) == 3

    def test_a_tokenizer_that_loses_line_breaks_gets_a_token_for_them(self, ready, folder, tmp_path):
        for path in folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        state = json.loads((folder / "tokenizer.json").read_text())
        state["normalizer"] = {"type": "Replace", "pattern": {"String": "\n"}, "content": " "}
        (tmp_path / "tokenizer.json").write_text(json.dumps(state))
        full = Seq2SeqTask(model=str(tmp_path))
        splits = full.read(None, 0)
        full.fit(splits.train)
        assert not full.tokens.keeps_lines
        assert any("line breaks" in warning for warning in splits.warnings)
        config = json.loads((folder / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 301}))
        roomy = Seq2SeqTask(model=str(tmp_path))
        splits = roomy.read(None, 0)
        roomy.fit(splits.train)
        assert roomy.tokens.decode(roomy.tokens.encode(["one\ntwo\n"])) == ["one\ntwo\n"]
        assert not splits.warnings
        again = Seq2SeqTask(model=str(tmp_path))
        again.load_state_dict(roomy.state_dict())
        assert again.tokens.encode(["one\ntwo"]) == roomy.tokens.encode(["one\ntwo"])


class TestRefusals:
    def refused(self, model, match, **options):
        task = Seq2SeqTask(model=str(model), **options)
        splits = task.read(None, 0)

        def load():
            task.fit(splits.train)
            task.build_model()

        with pytest.raises(UsageError, match=match):
            load()

    def test_a_folder_without_a_model(self, tmp_path):
        self.refused(tmp_path, r"it has no config\.json")

    def test_an_adapter(self, tmp_path):
        (tmp_path / "adapter_config.json").write_text("{}")
        self.refused(tmp_path, "it holds an adapter")

    def test_weights_in_a_pickle(self, folder, tmp_path):
        (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
        (tmp_path / "pytorch_model.bin").write_bytes(b"x")
        self.refused(tmp_path, "a pickle, which may run code")

    def test_a_model_of_another_kind(self, tmp_path):
        GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=300)).save_pretrained(tmp_path)
        self.refused(tmp_path, "gpt2 has no encoder and decoder")

    def test_a_config_that_is_none(self, tmp_path):
        (tmp_path / "config.json").write_text("{")
        (tmp_path / "model.safetensors").write_bytes(b"")
        self.refused(tmp_path, "no sequence-to-sequence model can be loaded")

    def test_weights_that_are_broken(self, folder, tmp_path):
        for path in folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / "model.safetensors").write_bytes(b"broken")
        self.refused(tmp_path, "no sequence-to-sequence model can be loaded")

    def test_weights_of_another_shape(self, folder, tmp_path):
        for path in folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        save_file({"shared.weight": torch.zeros(3, 3)}, tmp_path / "model.safetensors", {"format": "pt"})
        self.refused(tmp_path, "no sequence-to-sequence model can be loaded")

    def test_a_tokenizer_with_more_tokens_than_the_model(self, folder, tmp_path):
        for path in folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        config = json.loads((folder / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
        self.refused(tmp_path, "the tokenizer has 300 tokens, the model 100")

    def test_a_name_without_the_network(self, monkeypatch):
        monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
        self.refused("no-such/model", r"task\.download=true")


class TestWriting:
    def test_the_runs_randomness_is_left_alone(self, ready):
        task, splits, model = ready
        torch.manual_seed(5)
        before = torch.get_rng_state()
        task.predict(model, batch_of(task, splits.val), {})
        list(task.stream(model, batch_of(task, splits.val, (0,)), splits.val.__getitems__([0])))
        assert torch.equal(torch.get_rng_state(), before)

    def test_it_follows_from_seed_and_samples(self, ready):
        task, splits, model = ready

        def texts(seed, rows=(0, 1, 2)):
            torch.manual_seed(seed)
            return task.predict(model, batch_of(task, splits.val, rows), {})["texts"]

        first = texts(1)
        torch.rand(3)
        assert texts(1) == first
        assert texts(2) != first

    def test_greedy_and_beams_draw_nothing(self, ready):
        task, splits, model = ready
        batch = batch_of(task, splits.val)
        arguments = model, batch["input_ids"], batch["attention_mask"]
        for options in (Generation(do_sample=False, max_new_tokens=6), Generation(False, beams=3, max_new_tokens=6)):
            assert torch.equal(written(*arguments, options, (1,)), written(*arguments, options, (2,)))
        expected = model.generate(
            input_ids=arguments[1], attention_mask=arguments[2], max_new_tokens=6, do_sample=False, num_beams=1
        )
        assert torch.equal(written(*arguments, Generation(do_sample=False, max_new_tokens=6), (1,)), expected)

    def test_a_low_temperature_is_greedy(self, ready):
        task, splits, model = ready
        batch = batch_of(task, splits.val)
        arguments = model, batch["input_ids"], batch["attention_mask"]
        cold = written(*arguments, Generation(temperature=1e-4, max_new_tokens=6), (1,))
        assert torch.equal(cold, written(*arguments, Generation(do_sample=False, max_new_tokens=6), (1,)))

    def test_as_trained_it_writes_as_much_as_is_right(self, ready):
        task, splits, model = ready
        batch = batch_of(task, splits.val)
        own = task.generation
        for most, expected in ((8, min(8, batch["labels"].shape[1])), (3, 3)):
            task.generation = Generation(max_new_tokens=most, exactly=batch["labels"].shape[1])
            assert written(model, batch["input_ids"], batch["attention_mask"], task.generation, (1,)).shape[1] == (
                expected + 1
            )
        task.generation = own

    def test_who_stops_listening_stops_the_writing(self, ready):
        task, _, model = ready
        longer = Seq2SeqTask(**MICRO, max_new_tokens=100_000)
        longer.load_state_dict(task.state_dict())
        samples = longer.prompts(["21 November 2026"]).__getitems__([0])
        stream = longer.stream(model, longer.collate(samples), samples)
        next(stream)
        stream.close()

    def test_what_fails_while_writing_is_raised(self, ready, monkeypatch):
        task, splits, model = ready
        monkeypatch.setattr(model, "generate", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(task.stream(model, batch_of(task, splits.val, (0,)), splits.val.__getitems__([0])))

    def test_an_answer_has_texts_and_no_target_that_is_not_known(self, ready):
        task, splits, model = ready
        (known,) = task.answers(model, batch_of(task, splits.val, (0,)), splits.val.__getitems__([0]))
        assert [panel.title for panel in known.panels] == ["input", "target", "output"]
        assert known.data["target"] == splits.val.__getitems__([0])[0]["target"]
        samples = task.prompts(["3 May 2020"]).__getitems__([0])
        (asked,) = task.answers(model, task.collate(samples), samples)
        assert [panel.title for panel in asked.panels] == ["input", "output"]
        assert (set(asked.data), asked.files[".txt"]) == ({"id", "input", "output"}, asked.text + "\n")


def test_fp16_is_warned_of(ready, caplog):
    task, _, _ = ready
    with caplog.at_level(logging.WARNING):
        task.on_run_start(SimpleNamespace(engine=SimpleNamespace(precision="bf16")))
        assert not caplog.text
        task.on_run_start(SimpleNamespace(engine=SimpleNamespace(precision="fp16")))
    assert "t5 overflows" in caplog.text


def test_baselines_are_the_most_frequent_the_copy_and_frequencies(ready):
    task, splits, _ = ready
    batch = batch_of(task, splits.train)
    found = {name: predict(batch) for name, predict in task.baselines().items()}
    assert found["copy"]["texts"] == batch["inputs"]
    targets = [sample["target"] for sample in splits.train.__getitems__([*range(len(splits.train))])]
    assert set(found["most-frequent"]["texts"]) == {max(targets, key=targets.count)}
    logits = found["token-frequencies"]["logits"]
    assert logits.shape == (*batch["labels"].shape, 300)
    counts = torch.zeros(300)
    for target in targets:
        counts += torch.bincount(torch.tensor(task.tokens.tokenizer(target)["input_ids"]), minlength=300)
    assert torch.allclose(logits[0, 0].exp(), (counts + 1) / (counts + 1).sum(), atol=1e-6)


@pytest.mark.parametrize("learning", ["", "SelfAttention.q"])
def test_recomputed_activations_give_the_same_gradients_even_where_embeddings_are_frozen(learning):
    task, splits, _ = fitted(dropout=0.0)
    batch, found = batch_of(task, splits.train), []
    for recomputes in (False, True):
        torch.manual_seed(0)
        model = task.build_model().train()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(learning in name)
        if recomputes:
            model.activation_checkpointing_enable()
        task.forward(model, batch)["logits"].square().mean().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert all(gradient is not None for gradient in found[1].values())
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])


def test_a_model_in_a_wrapper_writes_and_is_described(ready):
    task, splits, model = ready

    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, **values):
            return self.module(**values)

    batch, wrapped = batch_of(task, splits.val), Wrapper(model).eval()
    assert task.predict(wrapped, batch, {}) == task.predict(model, batch, {})
    assert torch.equal(task.forward(wrapped, batch)["logits"], task.forward(model, batch)["logits"])
    assert task.checkpoint_files(wrapped) == task.checkpoint_files(model)

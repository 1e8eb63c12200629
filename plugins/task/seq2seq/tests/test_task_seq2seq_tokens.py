"""Tokens: trained tokenizers, what is encoded and cut, the cache and its faults, batches and templates."""

from __future__ import annotations

import logging
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainkit.data import BatchMaker
from trainkit.errors import UsageError
from trainkit.templates import checked, rendered, stripped
from trainkit_task_seq2seq import task as tasks
from trainkit_task_seq2seq.batch import batch_of, shifted_right
from trainkit_task_seq2seq.cache import MANIFEST, Cache
from trainkit_task_seq2seq.encoding import Limits, columns, encoded
from trainkit_task_seq2seq.flat import flat_of, mapped, write
from trainkit_task_seq2seq.store import Spool
from trainkit_task_seq2seq.task import Seq2SeqTask
from trainkit_task_seq2seq.tokenizer import Tokens, trained, trained_once

WORDS = ["a cup of sugar", "two cups of flour", "mix sugar and flour", "bake for ten minutes"]
LONG = Limits(64, 64)
LONG = Limits(64, 64)


@pytest.fixture(scope="module")
def tokens():
    return trained(WORDS * 3, 300)


def rows_of(texts, size):
    return [{"input": f"{text} {i}", "target": f"{i} {text}"} for i in range(size) for text in texts]


class TestTokenizer:
    @settings(max_examples=50, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_every_text_comes_back(self, tokens, text):
        assert tokens.decode(tokens.encode([text])) == [text]

    def test_training_repeats_itself(self, tokens):
        assert trained(WORDS * 3, 300).files == tokens.files
        assert trained(WORDS, 280).fingerprint != tokens.fingerprint

    def test_special_tokens_are_padding_end_and_unknown(self, tokens):
        own = tokens.tokenizer
        assert (own.pad_token_id, own.eos_token_id, own.unk_token_id) == (0, 1, 2)
        assert (tokens.before, tokens.after) == ((), (1,))
        assert own("sugar")["input_ids"] == [*tokens.encode_one("sugar"), 1]

    def test_files_hold_all_of_it(self, tokens):
        again = Tokens.of_files(tokens.files)
        assert again.encode(WORDS) == tokens.encode(WORDS)
        assert again.fingerprint == tokens.fingerprint
        assert set(tokens.files) == {"tokenizer.json", "tokenizer_config.json"}

    def test_one_that_was_trained_before_is_not_trained_again(self, tmp_path, monkeypatch):
        first = trained_once(lambda: WORDS, 300, Cache(tmp_path))
        monkeypatch.setattr("trainkit_task_seq2seq.tokenizer.trained", lambda *_: pytest.fail("trained again"))
        assert trained_once(lambda: WORDS, 300, Cache(tmp_path)).fingerprint == first.fingerprint


class TestEncoding:
    def test_an_input_that_is_cut_has_its_end_and_a_target_that_is_cut_has_none(self, tokens):
        long = " ".join(WORDS)
        found = encoded(columns([long, "a"], [long, "a"], ("{text}",), Limits(8, 9)), tokens)
        bare = tokens.encode_one(long)
        assert found.inputs[0][0].tolist() == [*bare[:7], 1]
        assert found.targets[0].tolist() == bare[:9]
        assert found.targets[1].tolist() == [*tokens.encode_one("a"), 1]
        assert found.cut == (1, 1)
        assert [line[:6] for line in found.told(Limits(8, 9))] == ["1 of 2", "1 of 2"]

    def test_it_is_what_transformers_makes_of_the_texts(self, tokens):
        templates = ("Q: {text}", "{text}")
        found = encoded(columns(WORDS, WORDS, templates, Limits(64, 64)), tokens)
        for number, template in enumerate(templates):
            expected = tokens.tokenizer([rendered(template, text) for text in WORDS])["input_ids"]
            assert [row.tolist() for row in (found.inputs[number][i] for i in range(4))] == expected
        expected = tokens.tokenizer(WORDS)["input_ids"]
        assert found.lengths.tolist() == [len(found.inputs[0][i]) + len(expected[i]) for i in range(4)]

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.lists(st.lists(st.integers(0, 60_000)), max_size=4), max_size=4))
    def test_rows_come_back_from_files(self, tmp_path_factory, chunks):
        folder, dtype = tmp_path_factory.mktemp("rows"), np.dtype(np.uint16)
        write(chunks, dtype, folder, "x")
        rows = [row for chunk in chunks for row in chunk]
        for flat in (mapped(folder, "x", dtype), flat_of(chunks, dtype)):
            assert len(flat) == len(rows)
            assert [flat[i].tolist() for i in range(len(flat))] == rows
            assert flat.lengths.tolist() == [len(row) for row in rows]


class TestCache:
    @pytest.fixture
    def encode(self, tokens, tmp_path):
        def again(texts=WORDS, limits=LONG, content="c", templates=("{text}",)):
            return encoded(columns(texts, texts, templates, limits), tokens, Cache(tmp_path), content)

        return again

    def folders(self, tmp_path):
        return sorted(path for path in tmp_path.iterdir() if path.is_dir())

    def test_what_was_encoded_once_is_mapped(self, encode, tmp_path, tokens, monkeypatch):
        first = encode()
        monkeypatch.setattr(Tokens, "encode", lambda *_: pytest.fail("encoded again"))
        second = encode()
        assert isinstance(second.targets.values.base, np.memmap)
        assert np.array_equal(second.targets.values, first.targets.values)
        assert len(self.folders(tmp_path)) == 1

    def test_other_texts_limits_and_templates_are_kept_apart(self, encode, tmp_path):
        encode()
        encode(limits=Limits(8, 8))
        encode(content="d")
        encode(templates=("Q {text}",))
        assert len(self.folders(tmp_path)) == 4

    @pytest.mark.parametrize("fault", ["flipped", "short", "gone", "manifest"])
    def test_a_broken_one_is_made_anew(self, encode, tmp_path, caplog, fault):
        expected = np.array(encode().targets.values)
        (folder,) = self.folders(tmp_path)
        path = folder / ("targets.values" if fault != "manifest" else MANIFEST)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        if fault == "gone":
            path.unlink()
        else:
            path.write_bytes(data[:-2] if fault == "short" else b"no JSON" if fault == "manifest" else data)
        with caplog.at_level(logging.WARNING):
            assert np.array_equal(encode().targets.values, expected)
        assert "is damaged: it is made anew" in caplog.text
        caplog.clear()
        encode()
        assert not caplog.text

    def test_one_that_is_killed_leaves_nothing_that_counts(self, encode, tmp_path, tokens, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(Tokens, "encode", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                encode()
        assert not self.folders(tmp_path)
        assert len(encode().targets) == 4

    def test_one_that_cannot_be_written_is_told_and_done_without(self, tokens, tmp_path, caplog):
        (tmp_path / "file").write_text("in the way")
        found = encoded(columns(WORDS, None, ("{text}",), Limits(9, 9)), tokens, Cache(tmp_path / "file"), "c")
        assert len(found.inputs[0]) == 4
        assert "nothing is kept in the cache" in caplog.text

    def test_what_was_not_asked_for_the_longest_goes_first(self, tmp_path):
        def fill(folder):
            (folder / "x").write_bytes(b"0" * 1000)

        cache = Cache(tmp_path, most_bytes=2500)
        for key in ("a", "b", "a", "c"):
            cache.folder(key, fill)
            # The clock of files may be coarse.
            for age, name in enumerate(("c", "a", "b")):
                if (tmp_path / name).exists():
                    import os

                    os.utime(tmp_path / name, (1000 - age, 1000 - age))
        assert [path.name for path in self.folders(tmp_path)] == ["a", "c"]

    def test_small_data_is_not_kept_and_large_data_is(self, jsonl, own_cache, monkeypatch):
        task = Seq2SeqTask(size="micro", vocab_size=300)
        task.fit(task.read(jsonl(rows_of(WORDS, 5)), 0).train)
        assert not own_cache.exists()
        monkeypatch.setattr(tasks, "LARGE", 100)
        task.fit(task.read(jsonl(rows_of(WORDS, 5)), 0).train)
        assert sorted(path.name.partition("-")[0] for path in own_cache.iterdir()) == ["tokenizer", "tokens"]
        assert isinstance(task.corpus.encodings.targets.values.base, np.memmap)


class TestStreaming:
    def test_texts_go_through_a_file(self, tmp_path):
        spool = Spool(tmp_path)
        texts = ["a", "", "ü\n", "z" * 1000]
        for text in texts:
            spool.append(text)
        assert list(spool) == texts
        spool.append("late")
        assert (len(spool), spool[4], spool[2]) == (5, "late", "ü\n")
        assert not list(tmp_path.iterdir())

    def test_it_reads_the_same_in_bounded_memory(self, jsonl, monkeypatch):
        rows = [{"input": f"line {i}", "target": f"{i} " + "words and words " * 60} for i in range(400)]
        monkeypatch.setattr("trainkit_task_seq2seq.reading.LOOKED_AT", 10)
        path = jsonl(rows)
        peaks, batches = [], []
        for streaming in (False, True):
            task = Seq2SeqTask(size="micro", vocab_size=300, streaming=streaming)
            tracemalloc.start()
            splits = task.read(path, 0)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            task.fit(splits.train)
            batches.append(task.collate(splits.train.__getitems__([0, 5, 2])))
        # 0.4 MB of text: in memory it is there, through files the first records are that columns are found by.
        assert peaks[0] > 400_000 > 2 * peaks[1], peaks
        for name, value in batches[0].items():
            other = batches[1][name]
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name

    def test_it_needs_the_cache(self):
        with pytest.raises(UsageError, match=r"task\.streaming"):
            Seq2SeqTask(streaming=True, cache=False)


class TestBatch:
    def test_the_decoder_reads_what_came_before(self):
        labels = torch.tensor([[5, 6, 1], [7, 1, -100]])
        assert shifted_right(labels, 0, 0).tolist() == [[0, 5, 6], [0, 7, 1]]
        assert shifted_right(labels, 2, 9).tolist() == [[2, 5, 6], [2, 7, 1]]
        from transformers import T5Config, T5ForConditionalGeneration

        with torch.device("meta"):
            model = T5ForConditionalGeneration(T5Config(d_model=8, num_layers=1, d_kv=2, d_ff=8, num_heads=1))
        model.config.decoder_start_token_id = 0
        expected = model.prepare_decoder_input_ids_from_labels(labels=labels)
        assert shifted_right(labels, 0, 0).tolist() == expected.tolist()

    def test_changed_texts_are_tokenised_and_others_are_not(self, jsonl, tokens, monkeypatch):
        task = Seq2SeqTask(size="micro", vocab_size=300)
        splits = task.read(jsonl(rows_of(WORDS, 5)), 0)
        task.fit(splits.train)
        sample = splits.train.__getitems__([0])[0]
        plain = task.collate([sample])
        other = task.collate([{**sample, "input": "bake sugar"}])
        assert other["input_ids"][0].tolist() == task.tokens.tokenizer("bake sugar")["input_ids"]
        assert torch.equal(other["labels"], plain["labels"])
        changed = task.collate([{**sample, "target": "mix"}])
        assert changed["labels"][0].tolist() == task.tokens.tokenizer("mix")["input_ids"]
        monkeypatch.setattr(Tokens, "encode_one", lambda *_: pytest.fail("tokenised again"))
        assert torch.equal(task.collate([{**sample}])["input_ids"], plain["input_ids"])

    def test_rows_are_as_long_as_the_longest_of_them(self, tokens):
        samples = [
            {"input": text, "target": text, "encoded": None, "template": "{text}"} for text in ("a", "mix sugar")
        ]
        batch = batch_of(samples, tokens, Limits(9, 9), 0, 0)
        longest = len(tokens.encode_one("mix sugar")) + 1
        assert batch["input_ids"].shape == batch["labels"].shape == (2, longest)
        assert batch["attention_mask"].sum(1).tolist() == [2, longest]
        assert (batch["labels"][0, 2:] == -100).all()
        assert (batch["input_ids"][0, 2:] == 0).all()


class TestTemplates:
    @pytest.mark.parametrize("template", ["no place", "{text} twice {text}"])
    def test_the_text_has_one_place(self, template):
        with pytest.raises(UsageError, match=r"task\.templates"):
            checked([template])

    def test_braces_of_a_text_mean_nothing(self):
        assert rendered("Q: {text}!", "{text} {0}") == "Q: {text} {0}!"

    def test_a_template_that_is_there_already_is_taken_off(self):
        templates = ("Make: {text}", "Make: a dish of {text} now", "{text}")
        assert stripped("make: soup", templates) == "soup"
        assert stripped("Make: a dish of soup now", templates) == "soup"
        assert stripped("soup", templates) == "soup"
        assert stripped("Make: ", templates) == "Make: "

    def test_training_draws_one_for_each_sample_and_epoch_and_validation_has_the_first(self, jsonl):
        templates = ("A {text}", "B {text}", "C {text}")
        task = Seq2SeqTask(size="micro", vocab_size=300, templates=templates)
        splits = task.read(jsonl(rows_of(WORDS, 20)), 0)
        task.fit(splits.train)
        maker = BatchMaker(splits.train, task.collate, seed=1)
        samples, variants = torch.arange(60), torch.zeros(60, dtype=torch.long)
        epochs = [maker(epoch, samples, variants) for epoch in range(2)]
        drawn = [[text[0] for text in batch["inputs"]] for batch in epochs]
        assert drawn[0] != drawn[1]
        assert set(drawn[0]) == {"A", "B", "C"}
        assert maker(0, samples, variants)["inputs"] == epochs[0]["inputs"]
        # What is drawn was encoded with its template.
        expected = task.tokens.tokenizer(epochs[1]["inputs"][7])["input_ids"]
        assert epochs[1]["input_ids"][7][: len(expected)].tolist() == expected
        assert {text[0] for text in task.collate(splits.val.__getitems__([0, 1]))["inputs"]} == {"A"}

    def test_prompts_come_in_the_first_and_never_in_two(self, tokens):
        task = Seq2SeqTask(size="micro", vocab_size=300, templates=("Make {text}", "Cook {text}"))
        task.tokens = tokens
        samples = task.prompts(["soup", "Cook soup"]).__getitems__([0, 1])
        assert [sample["input"] for sample in samples] == ["Make soup", "Make soup"]

"""The task 'seq2seq': text to text."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn
from trainkit import Technique, hookimpl
from trainkit.contracts import Answer, Batch, Dataset, Inspection, Outputs, Sample, Splits
from trainkit.errors import DataError, UsageError
from trainkit.live import Run
from trainkit.templates import checked, stripped

from .answers import answer_of, answers_of
from .bag import Bag
from .baselines import Baseline, baselines_of, most_frequent, token_counts
from .batch import batch_of
from .cache import Cache, cache_folder
from .dataset import Asked, Corpus, Pairs
from .embedded import PROMPTS, dates
from .encoding import Encodings, Limits, columns, encoded
from .files import PARTS
from .flat import Array
from .generation import Generation, pieces, written
from .inputs import read_inputs
from .models import Origin, config_of_state, dropout_name, positions_of, without_bars
from .pairs import Columns, Record, Schema
from .parts import corpus_of, divided
from .reading import BadSamples, Policy, Reading
from .records import Found
from .sizes import SIZES, SizeName
from .store import Spool, TextSink
from .techniques import techniques_of_text
from .tokenizer import Tokens

EMBEDDED = "embedded sample"
LINES = "the tokenizer of task.model takes line breaks for blanks, and has no room for a token of their own"
CHUNK = 256
LARGE = 1 << 20
MOST_COUNTED = 100_000
AskedIn = Literal["first", "all"]
# The sizes of T5's first weights lie two orders of magnitude apart: steps have to be shares of them.
FROM_NOTHING = {"optimizer.use": "adafactor", "optimizer.lr": 0.05}
# Weights that were learned before move less.
LEARNED_BEFORE = {"optimizer.lr": 1e-4}
Share = Annotated[float, Field(ge=0, lt=1)]
TopP = Annotated[float, Field(gt=0, le=1)]
VocabSize = Annotated[int, Field(ge=300)]
_log = logging.getLogger(__name__)


class Seq2SeqTask:
    """Write a text for a text: with any sequence-to-sequence model of transformers, or one built from a named size.

    Data is a file of JSON lines, JSON, CSV or Parquet, or a folder of such files, of Markdown, or of parts named
    train, val and test. Columns that no option names are found, and told by `trainkit validate`.

    Args:
        input: column of what is read.
        target: column of what is to be written.
        model: folder of a model of transformers, or its name on the hub; else one is built.
        download: whether a model may be fetched from the hub.
        size: of a model that is built, with a tokenizer trained on the training split: shapes of T5.
        vocab_size: most tokens of a tokenizer that is trained, and rows of the model's table; the size's if not given.
        dropout: share of features dropped in training; the model's own if not given.
        max_input: most tokens of an input; what is longer is cut, and counted.
        max_target: most tokens of a target; what is longer is cut, and counted.
        templates: ways to ask, each with {text} once; training draws one per sample and epoch, the first is the one of
            validation and prediction.
        asked_in: templates in which samples that are measured are asked: the first, or all, each sample once in each.
        val_share: of the samples for validation, where the data has no such part; by the hash of their targets.
        test_share: the same for a test.
        on_bad_sample: stop at records that cannot be used, or skip them.
        max_bad_fraction: share of bad records up to which 'skip' goes on.
        cache: whether tokens of large data are kept for the next run, in the cache folder of trainkit.
        streaming: whether texts and tokens stay in files, for data that does not fit memory.
        do_sample: whether tokens are drawn; else the most likely one is taken.
        temperature: of the distribution that is drawn from.
        top_p: tokens are drawn from the most likely ones that together have this probability.
        beams: of beam search; 1 for none.
        max_new_tokens: most tokens of an answer.

    Attributes:
        schema: makes pairs of records; a task that stands on this one sets its own.
        embedded: gives the records of the embedded sample.
        example_prompts: what is answered again and again while a model trains.
    """

    gives = frozenset(
        {
            "input_ids", "attention_mask", "labels", "decoder_input_ids", "inputs", "references", "templates",
            "logits", "texts",
        }
    )  # fmt: skip
    predicts = frozenset({"texts"})
    sample_keys = frozenset({"id", "input", "target", "encoded"})
    adjustable = frozenset(
        {
            "asked_in", "do_sample", "temperature", "top_p", "beams", "max_new_tokens", "on_bad_sample",
            "max_bad_fraction",
        }
    )  # fmt: skip

    def __init__(
        self,
        input: str | None = None,
        target: str | None = None,
        model: str | None = None,
        download: bool = False,
        size: SizeName = "tiny",
        vocab_size: VocabSize | None = None,
        dropout: Share | None = None,
        max_input: Annotated[int, Field(ge=8)] = 512,
        max_target: Annotated[int, Field(ge=8)] = 512,
        templates: tuple[str, ...] = (),
        asked_in: AskedIn = "first",
        val_share: Share = 0.1,
        test_share: Share = 0.0,
        on_bad_sample: BadSamples = "stop",
        max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01,
        cache: bool = True,
        streaming: bool = False,
        do_sample: bool = True,
        temperature: PositiveFloat = 0.7,
        top_p: TopP = 0.9,
        beams: PositiveInt = 1,
        max_new_tokens: PositiveInt = 200,
    ) -> None:
        if val_share + test_share >= 1:
            raise UsageError(f"task.val_share = {val_share:g} and task.test_share = {test_share:g} leave nothing")
        if streaming and not cache:
            raise UsageError("task.streaming keeps texts and tokens in the cache: leave task.cache = true")
        self.origin = Origin(model, download, SIZES[size], vocab_size or SIZES[size].vocab_size, dropout)
        self._limits = Limits(max_input, max_target)
        self.templates = checked(templates)
        if asked_in == "all" and len(self.templates) == 1:
            raise UsageError(
                "task.asked_in = all, and there is one template",
                why="how much wording matters can be told of several",
                do="leave it out, or give task.templates more than one",
            )
        self.asked_in = asked_in
        self.shares = val_share, test_share
        self.policy = Policy(on_bad_sample, max_bad_fraction)
        self.cache, self.streaming = cache, streaming
        self.generation = Generation(do_sample, temperature, top_p, beams, max_new_tokens)
        self.schema: Schema = Columns(input, target)
        self.embedded: Callable[[], Iterable[Record]] = dates
        self.example_prompts: tuple[str, ...] = PROMPTS
        self.corpus: Corpus | None = None
        self.tokens: Tokens | None = None
        self.config: Any = None
        self.frequent, self.counts = "", [0]
        self.warnings: list[str] = []
        self._is_restored = self._is_paced = False

    @property
    def limits(self) -> Limits:
        """Return the most tokens of texts: those that were asked for, as far as the model has places for them."""
        most = None if self.config is None else positions_of(self.config)
        asked = self._limits
        return asked if most is None else Limits(min(asked.input, most), min(asked.target, most))

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Return the settings that this task proposes."""
        return {
            "loss.use": "cross-entropy",
            "metric": ["perplexity"] + ["template-robustness"] * (self.asked_in == "all"),
            "augmenter": [],
            "callback": ["sample-outputs"],
            "evaluate.monitor": "val/loss",
            **(FROM_NOTHING if self.origin.model is None else LEARNED_BEFORE),
        }

    @property
    def techniques(self) -> Mapping[str, Technique]:
        """Return what strategies may ask of this task, and why the rest cannot be had."""
        return techniques_of_text(self._dropout)

    @property
    def _dropout(self) -> float | None:
        if self.origin.dropout is not None or self.config is None:
            return self.origin.dropout
        name = dropout_name(self.config)
        return float(getattr(self.config, name)) if name else None

    # Reading.

    def read(self, data: Path | None, seed: int) -> Splits:
        """Read and check the data, or the embedded sample; `seed` changes nothing.

        Raises:
            DataError: there is nothing to read, or it cannot be used.
        """
        del seed
        reading, bag = self._read(data)
        reading.judge()
        corpus, parts, shown = self._corpus(bag, reading, data)
        reading.judge()
        self.corpus = corpus
        self.warnings = [] if data is None else reading.warnings()
        splits = {name: Pairs(corpus, np.flatnonzero(parts == number)) for number, name in enumerate(PARTS)}
        train = splits["train"]
        if not len(train):
            raise DataError(
                "there is no record to learn from",
                where=str(data),
                why=f"{reading.count} records were read, {len(reading.rejected)} of them cannot be used",
                do="add records, two at least: one to learn from, one to validate on",
            )
        val, test = (splits[name] if len(splits[name]) else None for name in ("val", "test"))
        return Splits(train, val, test, shown, bag.content.hexdigest(), self.warnings, tuple(reading.rejected))

    def _read(self, data: Path | None, part: str | None = None) -> tuple[Reading, Bag]:
        reading = Reading(self.schema, self.policy, EMBEDDED if data is None else str(data))
        bag = Bag(self._sink(), self._sink(), self._sink(), self._sink())
        if data is None:
            found = ((Found(f"record {number}", record), "") for number, record in enumerate(self.embedded(), 1))
            reading.format = EMBEDDED
            reading.fill(found, bag)
        else:
            reading.fill(reading.files(data, part), bag)
        return reading, bag

    def _sink(self) -> TextSink:
        return Spool(cache_folder()) if self.streaming else []

    def _corpus(self, bag: Bag, reading: Reading, data: Path | None) -> tuple[Corpus, Array, str]:
        corpus, parts = corpus_of(bag, reading)
        corpus.templates = self.templates
        val_share, test_share = self.shares
        if data is None:
            # So that each split has something to show.
            val_share, test_share = val_share or 0.1, test_share or 0.1
        told = ""
        if (parts == -1).any():
            loose = parts == -1
            parts[loose] = divided(corpus.groups[loose], val_share, test_share)
            told = f"divided by hash: {val_share:.0%} for validation" + (
                f", {test_share:.0%} for test" * bool(test_share)
            )
        elif not (parts == 1).any() and val_share:
            train = parts == 0
            parts[train] = divided(corpus.groups[train], val_share, 0.0)
            told = f"no validation part: {val_share:.0%} of the training records serve as such"
        shown = "; ".join(filter(None, (reading.where, reading.format if data else "", reading.columns, told)))
        return corpus, parts, shown

    def inspect(self, data: Path) -> Inspection:
        """Look at data and tell all that is wrong with it, whatever the policy."""
        reading, bag = self._read(Path(data))
        corpus, parts, _ = self._corpus(bag, reading, Path(data))
        samples = {name: int((parts == number).sum()) for number, name in enumerate(PARTS)}
        facts: dict[str, float | str] = {"columns": reading.columns} if reading.columns else {}
        facts["records"] = reading.count
        if samples["train"]:
            self.corpus = corpus
            _, tokens = self._learned(Pairs(corpus, np.flatnonzero(parts == 0)))
            found = self._encoded(corpus, tokens)
            facts |= found.facts()
            for text in found.told(self.limits):
                reading.remark("too long", ".", text)
        shown = {name: count for name, count in samples.items() if count}
        return Inspection(str(data), reading.format, shown, reading.findings, facts)

    # Learning what the model needs to exist.

    def fit(self, train: Dataset) -> None:
        """Train a tokenizer on the training split, or load that of the model, and tokenise all splits once."""
        self.config, self.tokens = self._learned(train)
        self._is_restored = False
        if not self._tokens.keeps_lines:
            self.warnings.append(LINES)
        self._encode()
        self._learn_baselines(train)

    def _learned(self, train: Dataset) -> tuple[Any, Tokens]:
        return self.origin.learned(lambda: (text for pair in _texts(train) for text in pair), self._cache())

    def _cache(self) -> Cache | None:
        """Return where tokens are kept; None for data so small that they are as soon made as read."""
        is_large = self.corpus is not None and self.corpus.letters >= LARGE
        return Cache(cache_folder()) if self.streaming or (self.cache and is_large) else None

    def _encode(self) -> None:
        corpus = self.corpus
        if corpus is None:
            return
        corpus.encodings = self._encoded(corpus, self._tokens)
        self.warnings += corpus.encodings.told(self.limits)

    def _encoded(self, corpus: Corpus, tokens: Tokens) -> Encodings:
        found = columns(corpus.inputs, corpus.targets, corpus.templates, self.limits)
        return encoded(found, tokens, self._cache(), corpus.content)

    def _learn_baselines(self, train: Dataset) -> None:
        some = list(islice(_samples(train), MOST_COUNTED))
        self.frequent = most_frequent([sample["target"] for sample in some])
        rows = [sample["encoded"].labels for sample in some if sample["encoded"] is not None]
        self.counts = token_counts(rows, self.config.vocab_size)

    @property
    def _tokens(self) -> Tokens:
        if self.tokens is None:
            raise UsageError("the task has no tokenizer yet", do="call fit, or load a state")
        return self.tokens

    def build_model(self) -> nn.Module:
        """Return a fresh model of transformers, with the weights of its folder, or random ones for a built size."""
        if self.config is None:
            raise UsageError("the task has learned nothing yet", do="call fit, or load a state")
        on_meta = torch.get_default_device().type == "meta"
        return self.origin.build(self.config, with_weights=not (self._is_restored or on_meta))

    # Batches, outputs, answers.

    @property
    def _start(self) -> int:
        start = self.config.decoder_start_token_id
        return int(self._pad if start is None else start)

    @property
    def _pad(self) -> int:
        pad = self.config.pad_token_id
        return int(self._tokens.tokenizer.pad_token_id if pad is None else pad)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Return the batch of samples, padded to the longest of them."""
        return batch_of(samples, self._tokens, self.limits, self._pad, self._start)

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return the logits [B, T, V] of the labels, each after the right tokens; no cache, no loss of its own."""
        outputs = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            decoder_input_ids=batch["decoder_input_ids"],
            use_cache=False,
        )
        return {"logits": outputs["logits"]}

    def predict(self, model: nn.Module, batch: Batch, outputs: Outputs) -> Mapping[str, Any]:
        """Return the texts that the model writes for a batch by itself."""
        del outputs
        return {"texts": self._written(model, batch)}

    def _written(self, model: nn.Module, batch: Batch) -> list[str]:
        options = self.generation
        if self._is_paced and any(batch["references"]):
            options = replace(options, exactly=batch["labels"].shape[1])
        found = written(model, batch["input_ids"], batch["attention_mask"], options, _words(batch))
        return self._tokens.decode(found.tolist())

    @contextlib.contextmanager
    def as_trained(self) -> Iterator[None]:
        """Write texts as long as the right ones, wherever these are known: that takes as long as a trained model."""
        self._is_paced = True
        try:
            yield
        finally:
            self._is_paced = False

    def measured(self, dataset: Dataset, count: int) -> Dataset:
        """Return the first samples of a split as they are measured: in the first template, or in each one."""
        return Asked(dataset, count, len(self.templates) if self.asked_in == "all" else 1)

    def baselines(self) -> Mapping[str, Baseline]:
        """Return writers that copy, that always write the most frequent target, and token frequencies."""
        return baselines_of(self.frequent, self.counts)

    def inputs(self, paths: Sequence[Path]) -> Pairs:
        """Read what is to be answered: files of records, or of text with a prompt on each line."""
        found, warnings = read_inputs(paths, self.schema, self.policy)
        return self._prompts(found, warnings)

    def prompts(self, texts: Sequence[str]) -> Pairs:
        """Return a sample for each text; raise DataError for an empty one."""
        for number, text in enumerate(texts, 1):
            if not text.strip():
                raise DataError("the prompt is empty", where=f"prompt {number}", do="write what is to be answered")
        return self._prompts([(f"prompt-{number}", text) for number, text in enumerate(texts, 1)], [])

    def _prompts(self, found: Sequence[tuple[str, str]], warnings: list[str]) -> Pairs:
        texts = [stripped(text, self.templates) for _, text in found]
        rows = np.arange(len(texts))
        lengths = np.array([len(text) for text in texts], float)
        corpus = Corpus(texts, None, [name for name, _ in found], rows, lengths, templates=self.templates[:1])
        corpus.encodings = encoded(columns(texts, None, corpus.templates, self.limits), self._tokens)
        return Pairs(corpus, rows, [*warnings, *corpus.encodings.told(self.limits)])

    def whole(self, data: Path) -> Pairs:
        """Return every pair of some data, seen by the tokenizer of training."""
        reading, bag = self._read(Path(data), "train")
        corpus, parts = corpus_of(bag, reading)
        reading.judge()
        if not len(corpus):
            raise DataError("there is no record to look at", where=str(data))
        corpus.templates = self.templates if self.asked_in == "all" else self.templates[:1]
        corpus.encodings = encoded(columns(corpus.inputs, corpus.targets, corpus.templates, self.limits), self._tokens)
        told = corpus.encodings.told(self.limits)
        return Pairs(corpus, np.flatnonzero(parts == 0), [*reading.warnings(), *told])

    def answers(self, model: nn.Module, batch: Batch, samples: Sequence[Sample]) -> list[Answer]:
        """Return for each sample what the model writes, as text and JSON."""
        return answers_of(samples, self._written(model, batch))

    def stream(self, model: nn.Module, batch: Batch, samples: Sequence[Sample]) -> Generator[str, None, Answer]:
        """Yield what the model writes for one sample as it grows, and return the answer."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        text = yield from pieces(model, ids, mask, self.generation, _words(batch), self._tokens.tokenizer)
        return answer_of(samples[0], text)

    # Files and state.

    def checkpoint_files(self, model: nn.Module) -> dict[str, str]:
        """Return what transformers reads beside the weights: configurations and tokenizer."""
        inner = getattr(model, "module", model)
        config = getattr(inner, "config", self.config)
        generation = getattr(inner, "generation_config", None)
        config.architectures = config.architectures or [type(inner).__name__]
        found = {"config.json": config.to_json_string(), **self._tokens.files}
        return found | ({} if generation is None else {"generation_config.json": generation.to_json_string()})

    def export(self, model: nn.Module, directory: Path) -> None:
        """Write a folder that transformers loads: weights, configurations, tokenizer."""
        writer: Any = getattr(model, "module", model)
        with without_bars():
            writer.save_pretrained(directory)
        for name, text in self._tokens.files.items():
            (directory / name).write_text(text, encoding="utf-8")

    def state_dict(self) -> dict[str, Any]:
        """Return tokenizer, configuration, columns and what baselines know, as JSON."""
        keep = getattr(self.schema, "state_dict", None)
        return {
            "tokenizer": dict(self._tokens.files),
            "config": json.loads(self.config.to_json_string(use_diff=False)),
            "schema": {} if keep is None else keep(),
            "frequent": self.frequent,
            "counts": list(self.counts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; what was read is tokenised anew."""
        self.tokens = Tokens.of_files(state["tokenizer"])
        self.config = config_of_state(state["config"])
        self.frequent, self.counts = state["frequent"], list(state["counts"])
        self._is_restored = True
        load = getattr(self.schema, "load_state_dict", None)
        if load is not None and state["schema"]:
            load(state["schema"])
        self._encode()

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Warn of arithmetic in which T5 is known to overflow."""
        if run.engine.precision == "fp16" and self.config.model_type in ("t5", "mt5", "umt5", "longt5"):
            _log.warning(
                "precision fp16: a %s overflows in it, and its loss becomes NaN; take bf16 or fp32",
                self.config.model_type,
            )


def _texts(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Yield input and target of each sample, as they are read."""
    for sample in _samples(dataset):
        yield sample["input"], sample["target"] or ""


def _samples(dataset: Dataset) -> Iterator[Sample]:
    for first in range(0, len(dataset), CHUNK):
        items = dataset.__getitems__(list(range(first, min(first + CHUNK, len(dataset)))))
        assert not isinstance(items, Mapping)
        yield from items


def _words(batch: Batch) -> tuple[int, ...]:
    """Return numbers that tell a batch from others: what is drawn for it follows from them and from the seed."""
    ids = batch.get("sample_id")
    return (0,) if ids is None else tuple(ids.flatten().tolist())

"""A task small enough to train in a second: predict from each token of a ragged sequence a fixed function of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from trainkit.api import Request
from trainkit.compose import compose
from trainkit.config import layer_of
from trainkit.contracts import IGNORED_LABEL, Answer, Batch, Finding, Inspection, Outputs, Panel, Sample, Splits
from trainkit.draft import make_draft
from trainkit.errors import DataError
from trainkit.live import Run
from trainkit.plan import Plan, Setting, Situation, Stage, Technique
from trainkit.testing.tinyfiles import SPLITS, Sequences, bars, fingerprint, read_sequences

VOCABULARY = 13
Tokens = np.ndarray[Any, Any]


class TinyData:
    """Hold ragged sequences of tokens.

    Args:
        count: number of sequences.
        salt: makes splits differ.
        named: (name, tokens) of sequences that were read, in place of made ones.
    """

    def __init__(self, count: int, salt: int, named: Sequences | None = None) -> None:
        if named is None:
            generator = np.random.default_rng(salt)
            made = [generator.integers(0, VOCABULARY, int(n)) for n in generator.integers(2, 9, count)]
            named = [(f"{salt}-{i}", sequence) for i, sequence in enumerate(made)]
        self.ids = [name for name, _ in named]
        self.warnings: Sequence[str] = ()
        self.sequences = [sequence for _, sequence in named]
        self.difficulty = [float(len(sequence)) for sequence in self.sequences]
        self.quality = [1.0 - i / max(count, 1) for i in range(len(named))]

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        return [{"id": self.ids[i], "tokens": self.sequences[i]} for i in indices]


class TinyModel(nn.Module):
    """Embed, drop out, mix, classify: [B, L] tokens to [B, L, V] logits."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.mix = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout))
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Return the logits."""
        return {"logits": self.head(self.mix(self.embedding(tokens)))}


class TinyTask:
    """Learn label = (3 token + 1) mod V at each position.

    Data is a folder with train.txt, val.txt and test.txt, a sequence of tokens on each line; without it, sequences are
    made up. Answers are drawn from the predicted distribution.

    Args:
        samples: training sequences of the embedded sample; a third as many for validation and for test.
        width: width of the model.
        dropout: dropout of the model.
        guidance: how sharply answers are drawn: the factor of the logits.
        on_bad_sample: stop at lines that cannot be used, or skip them.
    """

    gives = frozenset({"tokens", "labels", "logits", "predictions"})
    predicts = frozenset({"predictions"})
    sample_keys = frozenset({"tokens"})
    adjustable = frozenset({"guidance", "on_bad_sample"})
    defaults: Mapping[str, Any] = {"metric": [], "callback": [], "loop.batch_size": 4}
    techniques: Mapping[str, Technique] = {
        "dropout": Technique(settings={"task.dropout": 0.1}, strength="task.dropout"),
        "label-smoothing": Technique(
            settings={"loss.use": "cross-entropy", "loss.label_smoothing": 0.1}, strength="loss.label_smoothing"
        ),
        "guidance": Technique(lacking="answers are drawn without a condition"),
    }

    def __init__(
        self,
        samples: int = 24,
        width: int = 16,
        dropout: float = 0.1,
        guidance: PositiveFloat = 1.0,
        on_bad_sample: Literal["stop", "skip"] = "stop",
    ) -> None:
        self.samples, self.width, self.dropout = samples, width, dropout
        self.guidance, self.on_bad_sample = guidance, on_bad_sample

    def read(self, data: Path | None, seed: int) -> Splits:
        """Return the sequences of a folder, or made ones, which depend on nothing but their number."""
        del seed
        if data is None:
            third = max(1, self.samples // 3)
            hashed = hashlib.sha256(f"tiny {self.samples}".encode()).hexdigest()
            return Splits(TinyData(self.samples, 1), TinyData(third, 2), TinyData(third, 3), "tiny sequences", hashed)
        parts, findings = self._read(data)
        faults = [(finding.place, finding.text) for finding in findings if finding.is_fault]
        if faults and self.on_bad_sample == "stop":
            do = "correct them, or leave them out by task.on_bad_sample=skip"
            raise DataError(f"{len(faults)} lines cannot be used", where=faults[0][0], why=faults[0][1], do=do)
        train, val, test = (TinyData(len(named), 0, named) for named in parts)
        warnings = [f"{len(faults)} lines were skipped"] if faults else []
        return Splits(train, val, test, str(data), fingerprint(data), warnings, faults)

    def _read(self, data: Path) -> tuple[list[Sequences], list[Finding]]:
        read = [read_sequences(data / f"{split}.txt", VOCABULARY) for split in SPLITS]
        return [named for named, _ in read], [finding for _, findings in read for finding in findings]

    def inspect(self, data: Path) -> Inspection:
        """Return what a folder holds, and every line that is wrong or notable."""
        parts, findings = self._read(data)
        longest = max((len(tokens) for named in parts for _, tokens in named), default=0)
        counts = {split: len(named) for split, named in zip(SPLITS, parts, strict=True)}
        return Inspection(str(data), "sequences, one a line", counts, findings, {"longest sequence": longest})

    def inputs(self, paths: Sequence[Path]) -> TinyData:
        """Return the sequences of text files, one a line."""
        named: Sequences = []
        warnings: list[str] = []
        for path in paths:
            found, findings = read_sequences(path, VOCABULARY)
            for finding in (finding for finding in findings if finding.is_fault):
                if self.on_bad_sample == "stop":
                    do = "correct the line"
                    raise DataError("a line cannot be used", where=finding.place, why=finding.text, do=do)
                warnings.append(f"left out: {finding.place}: {finding.text}")
            named += found
        dataset = TinyData(len(named), 0, named)
        dataset.warnings = warnings
        return dataset

    def answers(self, model: nn.Module, batch: Batch, samples: Sequence[Sample]) -> list[Answer]:
        """Return labels drawn from the predicted distribution, beside the right ones."""
        shares = (model(batch["tokens"])["logits"] * self.guidance).softmax(-1)
        drawn = torch.multinomial(shares.flatten(0, 1), 1).view(shares.shape[:2]).tolist()
        return [self._answer(sample, row[: len(sample["tokens"])]) for sample, row in zip(samples, drawn, strict=True)]

    def _answer(self, sample: Sample, labels: list[int]) -> Answer:
        right = ((3 * sample["tokens"] + 1) % VOCABULARY).tolist()
        panels = (
            Panel("input", self.picture(sample)),
            Panel("truth", " ".join(map(str, right))),
            Panel("answer", bars(np.array(labels), VOCABULARY)),
        )
        return Answer(sample["id"], {".json": json.dumps({"labels": labels}) + "\n"}, {"labels": labels}, panels)

    def picture(self, sample: Sample) -> Tokens:
        """Return the tokens as bars."""
        return bars(sample["tokens"], VOCABULARY)

    def fit(self, train: Any) -> None:
        """Learn nothing: the vocabulary is fixed."""
        del train

    def build_model(self) -> nn.Module:
        """Return a fresh model."""
        return TinyModel(self.width, self.dropout)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Return tokens padded with 0 and labels padded with the ignored label."""
        length = max(len(sample["tokens"]) for sample in samples)
        tokens = torch.zeros(len(samples), length, dtype=torch.long)
        labels = torch.full((len(samples), length), IGNORED_LABEL)
        for row, sample in enumerate(samples):
            real = torch.as_tensor(np.asarray(sample["tokens"]))
            tokens[row, : len(real)] = real
            labels[row, : len(real)] = (3 * real + 1) % VOCABULARY
        return {"tokens": tokens, "labels": labels}

    def predict(self, model: nn.Module, batch: Batch, outputs: Outputs) -> Mapping[str, Any]:
        """Return the likeliest label of each position."""
        del model, batch
        return {"predictions": outputs["logits"].argmax(-1)}

    def baselines(self) -> Mapping[str, Callable[[Batch], Mapping[str, Any]]]:
        """Return the predictor of label 0."""
        return {"zero": lambda batch: {"predictions": torch.zeros_like(batch["labels"])}}

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned: nothing but the vocabulary's size."""
        return {"vocabulary": VOCABULARY}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that the state is of this task."""
        if state["vocabulary"] != VOCABULARY:
            raise ValueError(f"a vocabulary of {VOCABULARY} is needed, got {state['vocabulary']}")


class TinyStrategy:
    """Answer every situation with the same stages.

    Args:
        stages: the stages of the plan.
        settings: settings by dotted key.
    """

    samples = None

    def __init__(self, stages: Sequence[Stage], settings: Mapping[str, Any] | None = None) -> None:
        self.stages, self.settings = tuple(stages), dict(settings or {})

    def plan(self, situation: Situation) -> Plan:
        """Return the plan."""
        del situation
        settings = {key: Setting(value=value, reason="tiny") for key, value in self.settings.items()}
        return Plan(strategy="tiny", stages=self.stages, settings=settings)


def tiny_request(
    settings: Mapping[str, Any] | None = None,
    *,
    stages: Sequence[Stage] = (Stage(epochs=2),),
    task: Any = None,
    callbacks: Sequence[object] = (),
    **live: Any,
) -> Request:
    """Return the request of a run on the tiny task.

    Args:
        settings: settings by dotted key; they win over the rest.
        stages: the stages of the plan.
        task: another live task in place of the tiny one.
        callbacks: live callbacks.
        live: a live component for any other kind, as loss=MyLoss.
    """
    objects: dict[str, Any] = {"live:task": task or TinyTask(), "live:strategy": TinyStrategy(stages)}
    named: dict[str, Any] = {"task": "live:task", "strategy": "live:strategy", "device": "cpu"}
    for kind, given in live.items():
        objects[f"live:{kind}"] = given
        named[kind] = f"live:{kind}"
    for place, callback in enumerate(callbacks):
        objects[f"live:callback{place}"] = callback
    named["callback"] = ["no:tensorboard", *(f"live:callback{place}" for place in range(len(callbacks)))]
    return Request([layer_of(named, "tiny"), layer_of(settings or {}, "test")], objects, report=lambda message: None)


def tiny_run(settings: Mapping[str, Any] | None = None, **arguments: Any) -> Run:
    """Return a composed run on the tiny task that leaves nothing behind: see `tiny_request` for the arguments."""
    request = tiny_request(settings, **arguments)
    return compose(make_draft(request.layers, request.registry, request.live), None, request.listeners)

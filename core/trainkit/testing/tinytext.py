"""A text task small enough to train in a second: texts of the letters a to m in, texts of as many letters out."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainkit.contracts import Answer, Batch, Panel, Sample
from trainkit.errors import DataError
from trainkit.testing.tiny import VOCABULARY, TinyData, TinyTask

LETTERS = "abcdefghijklm"
assert len(LETTERS) == VOCABULARY


class TinyText(TinyTask):
    """Learn what the tiny task learns, and answer texts: each letter is a token, as is each letter of an answer."""

    example_prompts: Sequence[str] = ("cab", "mild")

    def inputs(self, paths: Sequence[Path]) -> TinyData:
        """Return the texts of files, one a line."""
        try:
            return self.prompts([line for path in paths for line in path.read_text(encoding="utf-8").splitlines()])
        except OSError as error:
            raise DataError("a file cannot be read", where=str(error.filename), do="name a text file") from None

    def prompts(self, texts: Sequence[str]) -> TinyData:
        """Return texts as samples; raise DataError for one that has other letters."""
        named = []
        for number, text in enumerate(texts, 1):
            if unknown := sorted(set(text) - set(LETTERS)):
                why = f"it has {unknown[0]!r}; the letters from a to m are known"
                raise DataError("a prompt cannot be read", where=f"prompt {number}", why=why, do="correct it")
            named.append((f"prompt-{number}", np.array([LETTERS.index(letter) for letter in text])))
        return TinyData(len(named), 0, named)

    def stream(self, model: nn.Module, batch: Batch, samples: Sequence[Sample]) -> Generator[str, None, Answer]:
        """Yield the letters of an answer one by one, and return the answer."""
        answer: Answer = self.answers(model, batch, samples)[0]
        yield from answer.text
        return answer

    def answers(self, model: nn.Module, batch: Batch, samples: Sequence[Sample]) -> list[Answer]:
        """Return texts drawn letter by letter from the predicted distribution."""
        shares = (model(batch["tokens"])["logits"] * self.guidance).softmax(-1)
        drawn = torch.multinomial(shares.flatten(0, 1), 1).view(shares.shape[:2]).tolist()
        return [self._text(sample, row) for sample, row in zip(samples, drawn, strict=True)]

    def _text(self, sample: Sample, labels: list[int]) -> Answer:
        right = (3 * np.asarray(sample["tokens"]) + 1) % VOCABULARY
        given, truth, text = (_letters(tokens) for tokens in (sample["tokens"], right, labels[: len(right)]))
        panels = (Panel("input", given), Panel("truth", truth), Panel("answer", text))
        return Answer(sample["id"], {".txt": text + "\n"}, {"input": given, "text": text}, panels, text)


def _letters(tokens: Any) -> str:
    return "".join(LETTERS[token] for token in tokens)

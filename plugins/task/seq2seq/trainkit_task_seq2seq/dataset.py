"""Pairs of texts as a dataset: the texts, what is known of each, and, once there is a tokenizer, their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from trainkit.contracts import Batch, Dataset, Drawn, Sample
from trainkit.templates import PLAIN, rendered

from .encoding import Encoded, Encodings
from .flat import Array


@dataclass
class Corpus:
    """Hold everything that was read, whatever split it is in.

    Args:
        inputs: N texts.
        targets: N texts, or None where there is nothing to learn from.
        ids: N names, all different.
        groups: [N] int64: those of equal number are near-duplicates.
        difficulty: [N], the lower the easier.
        quality: [N], or None where nothing tells.
        templates: ways to ask; the first one is the fixed one.
        content: a hash of all that was read.
        letters: of all texts.
        encodings: tokens of all of them, once there is a tokenizer.
    """

    inputs: Sequence[str]
    targets: Sequence[str] | None
    ids: Sequence[str]
    groups: Array
    difficulty: Array
    quality: Array | None = None
    templates: tuple[str, ...] = PLAIN
    content: str = ""
    letters: int = 0
    encodings: Encodings | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def sample(self, row: int, template: int) -> dict[str, Any]:
        """Return a sample: its texts, and what was encoded of them."""
        source = rendered(self.templates[template], self.inputs[row])
        target = None if self.targets is None else self.targets[row]
        found = self.encodings
        ids = None if found is None else found.inputs[template][row]
        labels = None if found is None or found.targets is None else found.targets[row]
        encoded = None if ids is None else Encoded(source, target, ids, labels)
        names = {"id": self.ids[row], "template": self.templates[template]}
        return {**names, "input": source, "target": target, "encoded": encoded}


@dataclass
class Pairs:
    """Hold the samples of a split.

    Args:
        corpus: where they are.
        rows: [n] their places there.
        warnings: what a user should know about data that was read outside of a run.
    """

    corpus: Corpus
    rows: Array
    warnings: Sequence[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [self.corpus.sample(int(self.rows[index]), 0) for index in indices]

    def drawn(self, indices: list[int], numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return samples of draws, each asked for in one of the templates, which its number decides."""
        count = len(self.corpus.templates)
        drawn = zip(indices, numbers, strict=True)
        return [self.corpus.sample(int(self.rows[index]), number % count) for index, number in drawn]

    @property
    def ids(self) -> Sequence[str]:
        """Return the name of each sample."""
        return Chosen(self.corpus.ids, self.rows)

    @property
    def groups(self) -> Array:
        """Return for each sample the number that its near-duplicates share."""
        return self.corpus.groups[self.rows]

    @property
    def difficulty(self) -> Array:
        """Return how difficult each sample is."""
        return self.corpus.difficulty[self.rows]

    @property
    def quality(self) -> Array | None:
        """Return how good each sample is, or None where nothing tells."""
        return None if self.corpus.quality is None else self.corpus.quality[self.rows]

    @property
    def lengths(self) -> Array | None:
        """Return the tokens of each sample, input and target; None before there is a tokenizer."""
        return None if self.corpus.encodings is None else self.corpus.encodings.lengths[self.rows]


class Asked:
    """Be the first samples of a dataset, all of them asked in the first template, then all in the next one, and so on.

    Args:
        dataset: of pairs, or of some that were chosen of such: the number of a draw decides about its template.
        count: how many samples.
        templates: how many templates.
    """

    def __init__(self, dataset: Dataset, count: int, templates: int) -> None:
        self.dataset, self.count, self.templates = dataset, count, templates

    def __len__(self) -> int:
        return self.count * self.templates

    def __getitems__(self, indices: list[int]) -> Sequence[Sample] | Batch:
        if self.templates == 1:
            return self.dataset.__getitems__(indices)
        rows, numbers = [index % self.count for index in indices], [index // self.count for index in indices]
        return cast("Drawn", self.dataset).drawn(rows, numbers)

    @property
    def lengths(self) -> Array | None:
        """Return the tokens of each sample in the first template, or None where nothing tells."""
        found = getattr(self.dataset, "lengths", None)
        return None if found is None else np.tile(np.asarray(found)[: self.count], self.templates)


class Chosen(Sequence[str]):
    """Be some of a sequence of texts, looked up as they are asked for.

    Args:
        texts: all of them.
        rows: [n] which ones.
    """

    def __init__(self, texts: Sequence[str], rows: Array) -> None:
        self.texts, self.rows = texts, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.texts[int(self.rows[index])]

"""Text overlap: how far generated texts repeat training texts, each other, and themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import torch
from pydantic import PositiveInt
from torch import Tensor
from trainkit import UsageError
from trainkit.answering import spread
from trainkit.errors import DataError

from .corpus import Corpus, covered, words_of

if TYPE_CHECKING:
    from trainkit.contracts import Dataset
    from trainkit.live import Run

READ_AT_ONCE = 1024
LONGEST, COPIED, WORDS = "longest", "copied", "words"
NAN = float("nan")
_log = logging.getLogger(__name__)


def grams_of(words: Sequence[str], length: int) -> Tensor:
    """Return 64 bits [N] for each n-gram of a text; equal ones have equal bits, in any process."""
    joined = (" ".join(words[i : i + length]) for i in range(len(words) - length + 1))
    bits = [int.from_bytes(blake2b(gram.encode(), digest_size=8).digest(), "little", signed=True) for gram in joined]
    return torch.tensor(bits, dtype=torch.int64)


class TextOverlap:
    """Compute how much of generated texts stands word for word in the training texts, and how varied they are.

    `longest` is the mean over texts of the longest n-gram that a training text has, too, in words; `longest-max` that
    of the text that has the longest. `copy-rate` is the share of all words that lie in a shared n-gram of at least
    `least` words. `distinct-n` is the share of different n-grams among all of the generated texts. Words are compared
    in lower case, without punctuation.

    The training texts are read when the first text comes, once a run, into a suffix array; in an evaluation of a
    trained model on other data, too. Where they are gone, what needs them is NaN, with a warning. Rows are kept, not
    sums alone: a maximum and distinct n-grams cannot be added up.

    Args:
        least: words of the shortest n-gram that counts as copied.
        grams: lengths of the n-grams for distinct-n.
        key: of a training sample, under which its text is.
        most: training texts that are looked at; of more, so many that are spread evenly, with a warning.

    Source: 6.4 (longest common n-gram); Li et al. 2016, arXiv 1510.03055 (distinct-n) [paper]; copy-rate [reading].
    """

    reads = ("texts",)
    higher_is_better = False

    def __init__(
        self,
        least: PositiveInt = 8,
        grams: tuple[PositiveInt, ...] = (1, 2, 3),
        key: str = "target",
        most: PositiveInt = 200_000,
    ) -> None:
        self.least, self.grams, self.key, self.most = least, tuple(grams), key, most
        self.corpus: Corpus | None = None
        self._train: Dataset | None = None
        self.reset()

    def check_run(self, run: Run) -> None:
        """Note where the training texts are; raise UsageError if samples have none."""
        if self.key not in run.task.sample_keys:
            raise UsageError(
                f"metric text-overlap reads '{self.key}' of training samples, and they have none",
                where="metric.text-overlap.key",
                why=f"there are {', '.join(sorted(run.task.sample_keys))}",
                do="name the key of the text that is learned, or leave the metric out",
            )
        self._train, self.corpus = run.splits.train, None

    def reset(self) -> None:
        """Forget the texts that were seen; those of training stay."""
        self._rows: dict[str, list[Tensor]] = {}

    @property
    def sums(self) -> dict[str, Tensor]:
        """Return what `merge` takes: a row for each text, and all n-grams."""
        return {name: torch.cat(rows) for name, rows in self._rows.items()}

    def merge(self, other: Mapping[str, Tensor]) -> None:
        """Add what was seen of another part of the data."""
        for name, rows in other.items():
            self._rows.setdefault(name, []).append(rows)

    def update(self, texts: Sequence[str]) -> None:
        """Add a batch of texts."""
        if not texts:
            return
        words = [words_of(text) for text in texts]
        rows = {WORDS: torch.tensor([len(text) for text in words])}
        if (corpus := self._known()) is not None:
            matches = corpus.matches(words)
            rows[LONGEST] = torch.tensor([int(found.max(initial=0)) for found in matches])
            rows[COPIED] = torch.tensor([covered(found, self.least) for found in matches])
        for length in self.grams:
            rows[f"grams-{length}"] = torch.cat(
                [torch.empty(0, dtype=torch.int64), *(grams_of(w, length) for w in words)]
            )
        self.merge(rows)

    def compute(self) -> dict[str, float]:
        """Return the mean and maximum of the longest shared n-gram, the share of copied words, and distinct-n."""
        nothing, rows = torch.empty(0, dtype=torch.int64), self.sums
        longest = rows.get(LONGEST, nothing)
        words = int(rows[WORDS].sum()) if COPIED in rows else 0
        return {
            LONGEST: float(longest.double().mean()) if len(longest) else NAN,
            "longest-max": float(longest.max()) if len(longest) else NAN,
            "copy-rate": int(rows[COPIED].sum()) / words if words else NAN,
            **{f"distinct-{length}": distinct(rows.get(f"grams-{length}", nothing)) for length in self.grams},
        }

    def _known(self) -> Corpus | None:
        if self.corpus is None and self._train is not None:
            try:
                self.corpus = Corpus(self._texts(self._train))
            except DataError as error:
                self._train = None
                _log.warning("text-overlap: the training texts cannot be read, and what needs them is NaN: %s", error)
        return self.corpus

    def _texts(self, train: Dataset) -> Iterator[str]:
        if len(train) > self.most:
            _log.warning("text-overlap: of %d training texts %d are looked at", len(train), self.most)
        indices = spread(len(train), self.most)
        for start in range(0, len(indices), READ_AT_ONCE):
            items = train.__getitems__(indices[start : start + READ_AT_ONCE])
            yield from items[self.key] if isinstance(items, Mapping) else (item[self.key] for item in items)


def distinct(grams: Tensor) -> float:
    """Return the share of different n-grams among all; NaN where there is none."""
    return len(grams.unique()) / len(grams) if len(grams) else NAN

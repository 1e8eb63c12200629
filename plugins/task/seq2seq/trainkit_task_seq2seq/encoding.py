"""Texts as token ids: encoded once and in batch, cut at a limit, in flat arrays, which may be mapped from a cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from trainkit.templates import TEXT, rendered

from .cache import Cache
from .flat import Array, Flat, flat_of, mapped, write
from .tokenizer import Tokens

AT_ONCE = 1024
FORMAT = 1
CUT = "cut.json"


@dataclass(frozen=True, eq=False)
class Encoded:
    """Hold what was encoded of a sample: a sample whose texts are still these need not be tokenised again.

    Args:
        input: the text that was encoded.
        target: the text that was encoded, or None.
        input_ids: its tokens, with what the model wants around them.
        labels: tokens of the target, or None.
    """

    input: str
    target: str | None
    input_ids: Array
    labels: Array | None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Encoded):
            return NotImplemented
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return all(np.array_equal(one, another) for one, another in pairs)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Limits:
    """Hold the most tokens of an input and of a target, with what a model wants around them."""

    input: int
    target: int


@dataclass(frozen=True)
class Encodings:
    """Hold the tokens of all samples.

    Args:
        inputs: of each template the tokens of all inputs in it.
        targets: the tokens of all targets, or None.
        cut: how many inputs (of the first template) and targets were longer than the limit.
    """

    inputs: tuple[Flat, ...]
    targets: Flat | None
    cut: tuple[int, int] = (0, 0)

    def told(self, limits: Limits) -> list[str]:
        """Return what a user should know of texts that were cut, in lines."""
        pairs = zip(("input", "target"), self.cut, (limits.input, limits.target), strict=True)
        count = len(self.inputs[0])
        return [
            f"{cut:,} of {count:,} {name}s are longer than {limit} tokens (task.max_{name}): cut"
            for name, cut, limit in pairs
            if cut
        ]

    def facts(self) -> dict[str, str]:
        """Return how long texts are, for people."""
        columns = [("tokens of inputs", self.inputs[0]), ("tokens of targets", self.targets)]
        return {name: _spread(flat.lengths) for name, flat in columns if flat is not None and len(flat)}

    @cached_property
    def lengths(self) -> Array:
        """Return [N] the tokens of each sample, input and target."""
        own = self.inputs[0].lengths
        return own if self.targets is None else own + self.targets.lengths


def _spread(lengths: Array) -> str:
    least, middle, most = (int(value) for value in np.percentile(lengths, (0, 50, 100)))
    return f"{least:,} to {most:,}, half of them up to {middle:,}; {int(lengths.sum()):,} in all"


def room(tokens: Tokens, limit: int) -> int:
    """Return the most tokens of a text itself."""
    return limit - len(tokens.before) - len(tokens.after)


def input_ids(tokens: Tokens, bare: Sequence[int], limit: int) -> list[int]:
    """Return an input as a model reads it: cut to the limit, its end still marked."""
    return [*tokens.before, *bare[: room(tokens, limit)], *tokens.after]


def labels(tokens: Tokens, bare: Sequence[int], limit: int) -> list[int]:
    """Return a target as a model is to write it; one that is cut has no end: the model must not learn to stop there.

    [reading: transformers marks an end where the text was cut as well]
    """
    if len(bare) > room(tokens, limit):
        return [*tokens.before, *bare[: limit - len(tokens.before)]]
    return [*tokens.before, *bare, *tokens.after]


Wrap = Callable[[Tokens, Sequence[int], int], list[int]]


@dataclass(frozen=True)
class Column:
    """Hold texts that are to be encoded.

    Args:
        name: of their files.
        texts: as they are.
        template: what they are put into.
        wrap: adds what the model wants around tokens, and cuts.
        limit: most tokens.
    """

    name: str
    texts: Sequence[str]
    template: str
    wrap: Wrap
    limit: int

    def rows(self, tokens: Tokens, cut: list[int]) -> Iterator[list[list[int]]]:
        """Yield the tokens of the texts, many rows at a time; count in `cut` how many were too long."""
        for first in range(0, len(self.texts), AT_ONCE):
            last = min(first + AT_ONCE, len(self.texts))
            bare = tokens.encode([rendered(self.template, self.texts[row]) for row in range(first, last)])
            cut.append(sum(len(row) > room(tokens, self.limit) for row in bare))
            yield [self.wrap(tokens, row, self.limit) for row in bare]


def columns(
    inputs: Sequence[str], targets: Sequence[str] | None, templates: Sequence[str], limits: Limits
) -> list[Column]:
    """Return what is encoded of pairs: the inputs in each template, and the targets."""
    found = [
        Column(f"inputs-{number}", inputs, template, input_ids, limits.input)
        for number, template in enumerate(templates)
    ]
    return found if targets is None else [*found, Column("targets", targets, TEXT, labels, limits.target)]


def dtype_of(tokens: Tokens) -> np.dtype[Any]:
    """Return the smallest type that holds every token."""
    return np.dtype(np.uint16 if len(tokens) <= 1 << 16 else np.int32)


def encoded(found: Sequence[Column], tokens: Tokens, cache: Cache | None = None, content: str = "") -> Encodings:
    """Return the tokens of columns: from a cache, if they are there; else encoded now, and kept there.

    Args:
        found: what is encoded.
        tokens: how.
        cache: where tokens are kept; None: in memory alone.
        content: a hash of all texts.
    """
    dtype = dtype_of(tokens)
    counts: dict[str, list[int]] = {column.name: [] for column in found}

    def make(folder: Path) -> None:
        for column in found:
            write(column.rows(tokens, counts[column.name]), dtype, folder, column.name)
        (folder / CUT).write_text(json.dumps(_sums(counts)), encoding="utf-8")

    folder = None if cache is None else cache.folder(key_of(found, tokens, content), make)
    if folder is not None:
        flats = [mapped(folder, column.name, dtype) for column in found]
        cut = json.loads((folder / CUT).read_text(encoding="utf-8"))
    else:
        counts = {column.name: [] for column in found}
        flats = [flat_of(column.rows(tokens, counts[column.name]), dtype) for column in found]
        cut = _sums(counts)
    has_targets = found[-1].name == "targets"
    inputs = flats[:-1] if has_targets else flats
    return Encodings(tuple(inputs), flats[-1] if has_targets else None, (cut["inputs-0"], cut.get("targets", 0)))


def _sums(counts: dict[str, list[int]]) -> dict[str, int]:
    return {name: sum(some) for name, some in counts.items()}


def key_of(found: Sequence[Column], tokens: Tokens, content: str) -> str:
    """Return a name for all that tokens follow from: texts, templates, limits, tokenizer."""
    facts = [FORMAT, content, tokens.fingerprint, [(each.name, each.template, each.limit) for each in found]]
    return "tokens-" + xxhash.xxh3_128_hexdigest(json.dumps(facts).encode())

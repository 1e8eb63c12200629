"""Texts as token ids: encoded once and in batch, cut at a limit, in flat arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .flat import Array, Flat
from .templates import rendered
from .tokenizer import Tokens

AT_ONCE = 1024


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

    @cached_property
    def lengths(self) -> Array:
        """Return [N] the tokens of each sample, input and target."""
        own = self.inputs[0].lengths
        return own if self.targets is None else own + self.targets.lengths


def input_ids(tokens: Tokens, bare: Sequence[int], limit: int) -> list[int]:
    """Return an input as a model reads it: cut to the limit, its end still marked."""
    room = limit - len(tokens.before) - len(tokens.after)
    return [*tokens.before, *bare[:room], *tokens.after]


def labels(tokens: Tokens, bare: Sequence[int], limit: int) -> list[int]:
    """Return a target as a model is to write it; one that is cut has no end: the model must not learn to stop there.

    [reading: transformers marks an end where the text was cut as well]
    """
    room = limit - len(tokens.before) - len(tokens.after)
    if len(bare) > room:
        return [*tokens.before, *bare[: limit - len(tokens.before)]]
    return [*tokens.before, *bare, *tokens.after]


Wrap = Callable[[Tokens, Sequence[int], int], list[int]]


def rows_encoded(
    texts: Sequence[str], template: str, tokens: Tokens, wrap: Wrap, limit: int
) -> Iterator[tuple[list[list[int]], int]]:
    """Yield the tokens of texts in a template, many rows at a time, and how many of them were cut."""
    for first in range(0, len(texts), AT_ONCE):
        some = [rendered(template, texts[row]) for row in range(first, min(first + AT_ONCE, len(texts)))]
        bare = tokens.encode(some)
        room = limit - len(tokens.before) - len(tokens.after)
        yield [wrap(tokens, row, limit) for row in bare], sum(len(row) > room for row in bare)


def flat_of(chunks: Iterator[tuple[list[list[int]], int]], dtype: np.dtype) -> tuple[Flat, int]:
    """Return rows as a flat array in memory, and how many were cut."""
    values, lengths, cut = [], [np.zeros(0, np.int64)], 0
    for rows, more in chunks:
        lengths.append(np.fromiter(map(len, rows), np.int64, len(rows)))
        values.append(np.fromiter((token for row in rows for token in row), dtype, int(lengths[-1].sum())))
        cut += more
    joined = np.concatenate(values) if values else np.zeros(0, dtype)
    return Flat(joined, np.concatenate(lengths).cumsum()), cut


def dtype_of(tokens: Tokens) -> np.dtype:
    """Return the smallest type that holds every token."""
    return np.dtype(np.uint16 if len(tokens) <= 1 << 16 else np.int32)


def encoded(
    inputs: Sequence[str], targets: Sequence[str] | None, templates: Sequence[str], tokens: Tokens, limits: Limits
) -> Encodings:
    """Return the tokens of all samples, in memory."""
    dtype = dtype_of(tokens)
    found = [flat_of(rows_encoded(inputs, each, tokens, input_ids, limits.input), dtype) for each in templates]
    if targets is None:
        return Encodings(tuple(flat for flat, _ in found), None, (found[0][1], 0))
    flat, cut = flat_of(rows_encoded(targets, "{text}", tokens, labels, limits.target), dtype)
    return Encodings(tuple(flat for flat, _ in found), flat, (found[0][1], cut))

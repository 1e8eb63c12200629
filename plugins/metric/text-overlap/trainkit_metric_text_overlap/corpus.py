"""A corpus of texts as a suffix array over words: the longest stretch of words that a text shares with any of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
UNKNOWN = -1


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case; punctuation is none."""
    return _WORD.findall(text.lower())


def suffix_array(symbols: Ints) -> Ints:
    """Return the starts of all suffixes in the order of the suffixes, by doubling the length that is compared.

    Args:
        symbols: [N] of any integers; a shorter suffix comes before a longer one that begins with it.

    Source: Manber and Myers 1993: O(N log^2 N) here, with a sort for each of at most log2 of the longest repeat rounds.
    """
    ranks = np.unique(symbols, return_inverse=True)[1].astype(np.int64)
    length = 1
    while True:
        following = np.zeros_like(ranks)
        following[:-length] = ranks[length:] + 1
        keys = ranks * (len(symbols) + 1) + following
        order = np.argsort(keys, kind="stable")
        is_new = np.diff(keys[order]) != 0
        if is_new.all() or length >= len(symbols):
            return order
        ranks = np.empty_like(ranks)
        ranks[order] = np.concatenate([[0], is_new.cumsum()])
        length *= 2


class Corpus:
    """Hold texts so that stretches of words are found in them at once.

    No stretch reaches from one text into the next.

    Args:
        texts: of the corpus.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.numbers: dict[str, int] = {}
        pieces: list[Ints] = []
        for text in texts:
            known = [self.numbers.setdefault(word, len(self.numbers)) for word in words_of(text)]
            pieces.append(np.asarray([*known, UNKNOWN], dtype=np.int64))
        symbols = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
        ends = symbols == UNKNOWN
        # Each end is a symbol of its own: equal ones would be shared by texts that end alike.
        symbols[ends] = len(self.numbers) + np.arange(ends.sum())
        self.symbols = symbols
        self.suffixes = suffix_array(symbols) if len(symbols) else symbols

    def matches(self, texts: Sequence[Sequence[str]]) -> list[Ints]:
        """Return for each text, as words, and each of its words how many words from there on stand so in the corpus.

        All texts are looked up together, a word further in each round, while any of them still matches.
        """
        numbers = [[*(self.numbers.get(word, UNKNOWN) for word in text), UNKNOWN] for text in texts]
        asked = np.asarray([number for text in numbers for number in text], dtype=np.int64)
        found = np.zeros(len(asked), dtype=np.int64)
        alive = np.arange(len(asked))
        low, high = np.zeros(len(asked), np.int64), np.full(len(asked), len(self.suffixes))
        depth = 0
        while len(alive):
            wanted = asked[alive + depth]
            low, high = self._narrowed(low, high, wanted, depth), self._narrowed(low, high, wanted + 1, depth)
            matches = (low < high) & (wanted != UNKNOWN)
            alive, low, high = alive[matches], low[matches], high[matches]
            depth += 1
            found[alive] = depth
        bounds = np.cumsum([len(text) for text in numbers])[:-1]
        return [part[:-1] for part in np.split(found, bounds)] if texts else []

    def _narrowed(self, low: Ints, high: Ints, wanted: Ints, depth: int) -> Ints:
        """Return in each range [low, high) of suffixes the first whose word at `depth` is at least the wanted one."""
        low, high = low.copy(), high.copy()
        open_ = np.flatnonzero(low < high)
        while len(open_):
            middle = (low[open_] + high[open_]) // 2
            is_less = self.symbols[self.suffixes[middle] + depth] < wanted[open_]
            low[open_[is_less]] = middle[is_less] + 1
            high[open_[~is_less]] = middle[~is_less]
            open_ = open_[low[open_] < high[open_]]
        return low


def covered(matches: Ints, least: int) -> int:
    """Return how many words lie within a shared stretch of at least so many words.

    Args:
        matches: of a text, for each word how many words match from there on.
        least: of a stretch that counts.
    """
    steps = np.zeros(len(matches) + 1, dtype=np.int64)
    starts = np.flatnonzero(matches >= least)
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + matches[starts], -1)
    return int((steps.cumsum() > 0).sum())

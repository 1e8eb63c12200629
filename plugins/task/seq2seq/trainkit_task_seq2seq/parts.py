"""What was read as a corpus in parts: no pair in two of them, near-duplicates in one, every id once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from trainkit.tables import counted

from .bag import Bag
from .dataset import Corpus
from .files import PARTS
from .flat import Array
from .reading import Reading

WHOLE = float(1 << 64)


def corpus_of(bag: Bag, reading: Reading) -> tuple[Corpus, Array]:
    """Return what a bag holds as a corpus, and the part of each pair (-1 where none is given).

    Ids that several pairs have get a number; pairs that stand in two given parts are left out of the later one.
    """
    parts = np.asarray(bag.parts, np.int64)
    parts = _without_copies(bag, parts, reading)
    names = _own_names(bag, reading)
    quality = np.asarray(bag.quality)
    known = ~np.isnan(quality)
    if known.any() and not known.all():
        text = f"{counted(int((~known).sum()), 'record')} without a quality: taken for the mean of the others"
        reading.remark("no quality", ".", text)
        quality = np.where(known, quality, quality[known].mean())
    groups, difficulty = np.asarray(bag.groups, np.int64), np.asarray(bag.difficulty)
    corpus = Corpus(bag.inputs, bag.targets, names, groups, difficulty, quality if known.any() else None)
    corpus.content, corpus.letters = bag.content.hexdigest(), bag.letters
    return corpus, parts


def _without_copies(bag: Bag, parts: Array, reading: Reading) -> Array:
    wholes = np.asarray(bag.wholes, np.int64)
    _, first, inverse = np.unique(wholes, return_index=True, return_inverse=True)
    twins = first[inverse]
    again = np.flatnonzero(twins != np.arange(len(wholes)))
    gone = parts.copy()
    earliest: dict[int, int] = {}
    for row in again.tolist():
        twin = int(twins[row])
        other = min(earliest.get(twin, int(parts[twin])), int(parts[row]))
        place, other_place = bag.places[row], bag.places[twin]
        if parts[row] == parts[twin]:
            reading.remark("duplicate", place, f"the pair of {other_place} once more")
        else:
            # A score on what was learned by heart says nothing.
            later = row if parts[row] > parts[twin] else twin
            if gone[later] != len(PARTS):
                text = f"a copy of {other_place if later == row else place}, in another part: keep it in one"
                reading.reject(bag.places[later], "duplicate across parts", text)
            gone[later] = len(PARTS)
            earliest[twin] = other
    return gone


def _own_names(bag: Bag, reading: Reading) -> Sequence[str]:
    hashes = np.asarray(bag.name_hashes, np.int64)
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    twice = np.flatnonzero(counts[inverse] > 1)
    if not len(twice):
        return bag.names
    seen: dict[int, int] = {}
    renamed = {}
    for row in twice.tolist():
        number = seen[int(hashes[row])] = seen.get(int(hashes[row]), 0) + 1
        if number > 1:
            renamed[row] = f"{bag.names[row]}#{number}"
            reading.remark("duplicate id", bag.places[row], f"the id {bag.names[row]!r} once more: {renamed[row]!r}")
    return Renamed(bag.names, renamed)


class Renamed(Sequence[str]):
    """Be texts of which a few have another name.

    Args:
        texts: all of them.
        others: by place, those that differ.
    """

    def __init__(self, texts: Sequence[str], others: dict[int, str]) -> None:
        self.texts, self.others = texts, others

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return self.others.get(index) or self.texts[index]


def divided(groups: Array, val_share: float, test_share: float) -> Array:
    """Return the part of each pair, by the hash of its normalised target: near-duplicates are in one part.

    Whatever else the data holds, a pair stays in its part. A part with a share that no hash falls into gets the group
    with the least hash, so that there is something to validate on; and training is never empty.

    Args:
        groups: [N] int64, hashes.
        val_share: of validation.
        test_share: of test.
    """
    places = groups.view(np.uint64) / WHOLE
    parts = np.where(places < val_share, 1, np.where(places < val_share + test_share, 2, 0))
    order = np.unique(groups.view(np.uint64)).view(np.int64)
    if len(order) and not (parts == 0).any():
        parts[groups == order[-1]] = 0
    for part, share in ((1, val_share), (2, test_share)):
        if share and not (parts == part).any():
            for group in order.tolist():
                here = int(parts[groups == group][0])
                if here == 0 and len(np.unique(groups[parts == 0])) > 1:
                    parts[groups == group] = part
                    break
    return parts

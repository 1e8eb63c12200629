"""Pairs as they are read: texts where they are to go, and a few bytes of each in memory."""

from __future__ import annotations

import re
import unicodedata
from array import array
from dataclasses import dataclass, field

import numpy as np
import xxhash

from .files import PARTS
from .pairs import Pair
from .store import TextSink

NO_LETTER = re.compile(r"[\W_]+")


def normalised(text: str) -> str:
    """Return a text by which near-duplicates are the same: no case, no accents of form, nothing but letters, digits."""
    return NO_LETTER.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def hash_of(text: str) -> int:
    """Return 64 bits of a text, signed."""
    return int.from_bytes(xxhash.xxh3_64_digest(text.encode()), "little", signed=True)


@dataclass
class Bag:
    """Collect pairs as they are read; a few bytes of each stay in memory where texts go to a file.

    Args:
        inputs: takes texts.
        targets: takes texts.
        names: takes ids.
        places: takes where they stand.
    """

    inputs: TextSink
    targets: TextSink
    names: TextSink
    places: TextSink
    groups: array[int] = field(default_factory=lambda: array("q"))
    wholes: array[int] = field(default_factory=lambda: array("q"))
    name_hashes: array[int] = field(default_factory=lambda: array("q"))
    difficulty: array[float] = field(default_factory=lambda: array("d"))
    quality: array[float] = field(default_factory=lambda: array("d"))
    parts: array[int] = field(default_factory=lambda: array("b"))
    content: xxhash.xxh3_128 = field(default_factory=xxhash.xxh3_128)
    letters: int = 0

    def add(self, pair: Pair, name: str, part: str, place: str) -> None:
        """Take a pair."""
        self.inputs.append(pair.input)
        self.targets.append(pair.target)
        self.names.append(name)
        self.places.append(place)
        self.groups.append(hash_of(normalised(pair.target) or pair.target))
        self.wholes.append(hash_of(f"{normalised(pair.input)}\0{normalised(pair.target)}"))
        self.name_hashes.append(hash_of(name))
        length = len(pair.input) + len(pair.target)
        self.letters += length
        self.difficulty.append(length if pair.difficulty is None else pair.difficulty)
        self.quality.append(np.nan if pair.quality is None else pair.quality)
        self.parts.append(PARTS.index(part) if part else -1)
        line = f"{part}\0{name}\0{pair.quality}\0{pair.difficulty}\0{pair.input}\0{pair.target}\0"
        self.content.update(line.encode())

    def __len__(self) -> int:
        return len(self.groups)

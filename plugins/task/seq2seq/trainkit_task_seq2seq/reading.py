"""From records to pairs in parts: every record is used, or counted with a reason."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Literal

import numpy as np
import xxhash
from trainkit.contracts import Finding
from trainkit.errors import DataError, printable
from trainkit.tables import counted

from .dataset import Corpus
from .files import PARTS, Source, format_of, sources
from .flat import Array
from .pairs import LOOKED_AT, Pair, Schema, Unusable
from .records import Found, records
from .store import TextSink

BadSamples = Literal["stop", "skip"]
LISTED, REMARKS, MOST_TOLD = 20, 3, 100_000
NO_LETTER = re.compile(r"[\W_]+")
WHOLE = float(1 << 64)


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


@dataclass(frozen=True)
class Policy:
    """Hold what happens to records that cannot be used.

    Args:
        on_bad_sample: stop at them, or skip them.
        max_bad_fraction: share of bad records up to which 'skip' goes on.
    """

    on_bad_sample: BadSamples = "stop"
    max_bad_fraction: float = 0.01


class Reading:
    """Read data: pairs, findings, and what is told of them.

    Args:
        schema: makes pairs of records.
        policy: what happens to records that cannot be used.
        where: what is read, for people.
    """

    def __init__(self, schema: Schema, policy: Policy, where: str) -> None:
        self.schema, self.policy, self.where = schema, policy, where
        self.findings: list[Finding] = []
        self.rejected: list[tuple[str, str]] = []
        self.count = 0
        self.told: Counter[str] = Counter()
        self.format = self.columns = ""

    def files(self, data: Path, part: str | None = None) -> Iterator[tuple[Found, str]]:
        """Yield the records of files with their parts; `part` puts them all into one."""
        found, findings = sources(data)
        self.findings += findings
        self.format = format_of(found)
        for source in found:
            yield from self._records(source, part)

    def _records(self, source: Source, part: str | None) -> Iterator[tuple[Found, str]]:
        for each in records(source.path, printable(source.name)):
            yield each, source.part if part is None else part

    def fill(self, found: Iterable[tuple[Found, str]], bag: Bag) -> None:
        """Make pairs of records and put them into a bag."""
        stream = iter(found)
        first = list(islice(stream, LOOKED_AT))
        look = getattr(self.schema, "look", None)
        contents = [each.content for each, _ in first if each.content is not None]
        if look is not None and contents:
            self.columns = str(look(contents))
        for record, part in chain(first, stream):
            self.count += 1
            self._take(record, part, bag)

    def _take(self, record: Found, part: str, bag: Bag) -> None:
        if record.content is None:
            self.reject(record.place, record.rule, record.text)
            return
        try:
            pair = checked(self.schema.pair(record.content))
        except Unusable as error:
            self.reject(record.place, error.rule, error.text)
            return
        for rule, text in pair.notes:
            self.remark(rule, record.place, text)
        bag.add(pair, pair.id or record.place, part, record.place)

    def reject(self, place: str, rule: str, text: str) -> None:
        """Remember why a record cannot be used."""
        self.findings.append(Finding(rule, place, printable(text)))
        self.rejected.append((place, printable(text)))

    def remark(self, rule: str, place: str, text: str) -> None:
        """Remember what a user should know of what is used; of one rule no more than anybody reads."""
        self.told[rule] += 1
        if self.told[rule] <= MOST_TOLD:
            self.findings.append(Finding(rule, place, printable(text), is_fault=False))

    def judge(self) -> None:
        """Raise DataError if records that cannot be used must stop the run."""
        bad, total = len(self.rejected), self.count
        if not bad:
            return
        what = f"{bad:,} of {total:,} records cannot be used"
        if self.policy.on_bad_sample == "stop":
            do = "correct or remove them, or leave such records out by --set task.on_bad_sample=skip"
            raise DataError(what, where=self.where, why="\n".join(self.fault_lines()), do=do)
        if bad > self.policy.max_bad_fraction * total:
            raise DataError(
                f"{what}: more than task.max_bad_fraction = {self.policy.max_bad_fraction:g} allows",
                where=self.where,
                why="\n".join(self.fault_lines()),
                do=f"correct them, or allow more by --set task.max_bad_fraction={bad / total + 0.0005:.3f}",
            )

    def fault_lines(self) -> list[str]:
        """Return the first records that cannot be used, each with its reason, and how many there are by rule."""
        lines = [f"{place}: {text}" for place, text in self.rejected[:LISTED]]
        if len(self.rejected) > LISTED:
            rules = [finding.rule for finding in self.findings if finding.is_fault]
            by_rule = ", ".join(f"{rules.count(rule):,} {rule}" for rule in dict.fromkeys(rules))
            lines.append(f"... and {len(self.rejected) - LISTED:,} more; in all: {by_rule}")
        return lines

    def warnings(self) -> list[str]:
        """Return what a user should know, in lines: a few remarks of each rule, and the records left out."""
        lines = []
        remarks = sorted((each for each in self.findings if not each.is_fault), key=lambda each: each.rule)
        for rule, group in groupby(remarks, key=lambda each: each.rule):
            told = [each.text if each.place == "." else f"{each.place}: {each.text}" for each in group]
            lines += told[:REMARKS]
            if self.told[rule] > REMARKS:
                lines.append(f"... and {self.told[rule] - REMARKS:,} more of '{rule}': trainkit validate {self.where}")
        if self.rejected:
            lines.append(f"{len(self.rejected):,} of {self.count:,} records cannot be used and were left out:")
            lines += self.fault_lines()
        return lines


def checked(pair: Pair) -> Pair:
    """Return a pair whose texts can be written down; raise Unusable."""
    for role, text in (("input", pair.input), ("target", pair.target)):
        if not text.strip():
            raise Unusable(f"empty {role}", f"the {role} is empty")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            # Bytes that are no UTF-8 come through as surrogates of their own.
            said = f"byte {code - 0xDC00:#04x}" if 0xDC80 <= code <= 0xDCFF else f"U+{code:04X}, half of a letter"
            raise Unusable("encoding", f"the {role} is not UTF-8: {said}") from None
    return pair


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
    with the least hash, so that there is something to validate on.

    Args:
        groups: [N] int64, hashes.
        val_share: of validation.
        test_share: of test.
    """
    places = groups.view(np.uint64) / WHOLE
    parts = np.where(places < val_share, 1, np.where(places < val_share + test_share, 2, 0))
    order = np.unique(groups.view(np.uint64)).view(np.int64)
    for part, share in ((1, val_share), (2, test_share)):
        if share and not (parts == part).any():
            for group in order.tolist():
                here = int(parts[groups == group][0])
                if here == 0 and len(np.unique(groups[parts == 0])) > 1:
                    parts[groups == group] = part
                    break
    return parts

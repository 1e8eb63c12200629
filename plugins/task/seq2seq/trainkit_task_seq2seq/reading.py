"""From records to pairs in parts: every record is used, or counted with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Literal

from trainkit.contracts import Finding
from trainkit.errors import DataError, printable

from .bag import Bag
from .files import Source, format_of, sources
from .pairs import LOOKED_AT, Pair, Schema, Unusable
from .records import Found, records

BadSamples = Literal["stop", "skip"]
LISTED, REMARKS, MOST_TOLD = 20, 3, 100_000


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

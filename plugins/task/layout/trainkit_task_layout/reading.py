"""What is found while data is read: samples, faults and remarks, and the judgement at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from trainkit.contracts import Finding, Splits
from trainkit.errors import DataError, printable

from .dataset import LayoutDataset
from .files import BadSample, Fault
from .splits import BadSamples, Parts, complete_parts, copies, fingerprint, likenesses, no_samples

LISTED = 20
REMARKS = 3
HERE = "."


class Reading:
    """Collect samples and findings while a folder is read, and judge them at the end.

    Args:
        root: the data folder.
        on_bad_sample: stop at faults, or skip the samples that have them.
        max_bad_fraction: the share of bad samples up to which 'skip' goes on.
    """

    def __init__(self, root: Path, on_bad_sample: BadSamples = "stop", max_bad_fraction: float = 0.01) -> None:
        self.root, self.on_bad_sample, self.max_bad_fraction = root, on_bad_sample, max_bad_fraction
        self.findings: list[Finding] = []
        self.skipped: list[tuple[str, str]] = []
        self.read_samples = 0

    def collect(self, sources: Iterable[Any], read: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the samples that can be read; remember why the others cannot."""
        samples = []
        for source in sources:
            self.read_samples += 1
            try:
                samples.append(read(source))
            except Fault as fault:
                self.reject([fault])
            except BadSample as bad:
                self.reject(bad.faults)
        return samples

    def reject(self, faults: Iterable[Fault]) -> None:
        """Remember why one sample cannot be used."""
        found = [Finding(fault.rule, self.place(fault.path), printable(fault.reason)) for fault in faults]
        self.findings += found
        first, *others = found
        more = [f"{other.place}: {other.text}" for other in others]
        self.skipped.append((first.place, "; ".join([first.text, *more])))

    def remark(self, rule: str, path: Path, text: str) -> None:
        """Remember what a user should know about a file that can be used."""
        self.findings.append(Finding(rule, self.place(path), printable(text), is_fault=False))

    def place(self, path: Path) -> str:
        """Return a path relative to the data, fit to be printed."""
        return printable(str(path.relative_to(self.root) if path.is_relative_to(self.root) else path))

    def judge(self) -> None:
        """Raise DataError if bad samples must stop the run."""
        if not self.skipped:
            return
        bad, total = len(self.skipped), self.read_samples
        if self.on_bad_sample == "stop":
            raise DataError(
                f"{bad} of {total} samples cannot be used",
                where=str(self.root),
                why="\n".join(self._fault_lines()),
                do="repair or remove these files, or leave such samples out by --set task.on_bad_sample=skip",
            )
        if bad > self.max_bad_fraction * total:
            raise DataError(
                f"{bad} of {total} samples cannot be used: more than task.max_bad_fraction = "
                f"{self.max_bad_fraction:g} allows",
                where=str(self.root),
                why="\n".join(self._fault_lines()),
                do=f"repair these files, or allow more by --set task.max_bad_fraction={bad / total:.3f}",
            )

    def warnings(self) -> list[str]:
        """Return what a user should know, in lines: a few remarks of each rule, and the faults passed over."""
        lines = []
        remarks = sorted((each for each in self.findings if not each.is_fault), key=lambda each: each.rule)
        for rule, group in groupby(remarks, key=lambda each: each.rule):
            told = [each.text if each.place == HERE else f"{each.place}: {each.text}" for each in group]
            lines += told[:REMARKS]
            if len(told) > REMARKS:
                lines.append(f"... and {len(told) - REMARKS} more of '{rule}': trainkit validate {self.root}")
        if self.skipped:
            lines.append(f"{len(self.skipped)} of {self.read_samples} samples cannot be used and were left out:")
            lines += self._fault_lines()
        return lines

    def splits(self, parts: Parts) -> Splits:
        """Return the splits; raise DataError if bad samples, copies or too few samples forbid it."""
        parts = self.without_copies(parts)
        self.judge()
        if not any(parts.values()):
            raise no_samples(self.root)
        for text in complete_parts(parts, self.root):
            self.remark("splits", self.root, text)
        for path, rule, text in likenesses(parts):
            self.remark(rule, self.root / path, text)
        train = LayoutDataset(parts["train"])
        val, test = (LayoutDataset(parts[name], train) if parts[name] else None for name in ("val", "test"))
        return Splits(train, val, test, str(self.root), fingerprint(parts), tuple(self.warnings()), tuple(self.skipped))

    def without_copies(self, parts: Parts) -> Parts:
        """Return the parts without validation and test samples that stand in another part too; these are faults."""
        found = copies(parts)
        for sample, first in found.values():
            reason = (
                f"a copy of {first}, byte for byte; a score on what was learned by heart says nothing: "
                "keep it in one split"
            )
            self.reject([Fault(self.root / sample["source"], reason, "duplicate across splits")])
        return {name: [sample for sample in samples if id(sample) not in found] for name, samples in parts.items()}

    def _fault_lines(self) -> list[str]:
        lines = [f"{each.place}: {each.text}" for each in self.findings if each.is_fault]
        return [*lines[:LISTED], *([f"... and {len(lines) - LISTED} more"] if len(lines) > LISTED else [])]

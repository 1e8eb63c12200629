"""From read samples to splits: faults counted, leaks refused, parts chosen by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from trainkit.contracts import Splits
from trainkit.errors import DataError, printable

from .dataset import LayoutDataset
from .files import Fault

BadSamples = Literal["stop", "skip"]
LISTED = 20
PARTS = ("train", "val", "test")
Parts = dict[str, list[dict[str, Any]]]


class Reading:
    """Collect samples and faults while a folder is read, and judge them at the end.

    Args:
        root: the data folder.
        on_bad_sample: stop at faults, or skip the samples that have them.
        max_bad_fraction: the share of bad samples up to which 'skip' goes on.
    """

    def __init__(self, root: Path, on_bad_sample: BadSamples = "stop", max_bad_fraction: float = 0.01) -> None:
        self.root, self.on_bad_sample, self.max_bad_fraction = root, on_bad_sample, max_bad_fraction
        self.faults: list[Fault] = []
        self.warnings: list[str] = []
        self.read_samples = 0

    def collect(self, sources: Iterable[Any], read: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the samples that can be read; remember why the others cannot."""
        samples = []
        for source in sources:
            self.read_samples += 1
            try:
                samples.append(read(source))
            except Fault as fault:
                self.faults.append(fault)
        return samples

    def judge(self) -> None:
        """Raise DataError if bad samples must stop the run; otherwise turn them into warnings."""
        if not self.faults:
            return
        bad, total = len(self.faults), self.read_samples
        found = f"{bad} of {total} samples cannot be used"
        lines = [f"{self._relative(fault.path)}: {printable(fault.reason)}" for fault in self.faults[:LISTED]]
        if bad > LISTED:
            lines.append(f"... and {bad - LISTED} more")
        if self.on_bad_sample == "stop":
            raise DataError(
                found,
                where=str(self.root),
                why="\n".join(lines),
                do="repair or remove these files, or leave such samples out by --set task.on_bad_sample=skip",
            )
        if bad > self.max_bad_fraction * total:
            raise DataError(
                f"{found}: more than task.max_bad_fraction = {self.max_bad_fraction:g} allows",
                where=str(self.root),
                why="\n".join(lines),
                do=f"repair these files, or allow more by --set task.max_bad_fraction={bad / total:.3f}",
            )
        self.warnings.append(f"{found} and were left out:")
        self.warnings.extend(lines)

    def splits(self, parts: Parts, source: str) -> Splits:
        """Return the splits; raise DataError if bad samples, copies or too few samples forbid it."""
        self.judge()
        if not any(parts.values()):
            raise no_samples(self.root)
        complete_parts(parts, self)
        refuse_copies(parts, self.root)
        train = LayoutDataset(parts["train"])
        val, test = (LayoutDataset(parts[name], train) if parts[name] else None for name in ("val", "test"))
        return Splits(train, val, test, source, fingerprint(parts), tuple(self.warnings))

    def _relative(self, path: Path) -> str:
        return printable(str(path.relative_to(self.root) if path.is_relative_to(self.root) else path))


def complete_parts(parts: Parts, reading: Reading) -> None:
    """Take a validation part out of the training part where the data has none; raise DataError where it cannot."""
    if parts["train"] and parts["val"]:
        return
    if not parts["train"]:
        raise DataError("there are no training samples", where=str(reading.root), do="put samples into train/")
    if len(parts["train"]) == 1:
        raise DataError(
            "there is one training sample, and none to validate on",
            where=str(reading.root),
            why="a run decides about its best checkpoint on samples that it does not learn from",
            do="add samples: at least one to learn from and one in val/; some dozens are a sensible start",
        )
    total = len(parts["train"])
    divided = divide(parts["train"], shares=(0.9, 0.1, 0.0))
    if not divided["val"]:
        raise DataError(
            "all training samples are the same, and there is none to validate on",
            where=str(reading.root),
            do="add samples that differ, or a val/ folder",
        )
    parts["train"], parts["val"] = divided["train"], divided["val"]
    reading.warnings.append(f"no validation samples: {len(parts['val'])} of the {total} training samples serve as such")


def divide(samples: Sequence[dict[str, Any]], shares: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> Parts:
    """Return train, val and test parts by the hash of the samples' content: the same for everyone, in any order.

    Samples of equal layout stay together, so that no part holds an answer to another. A part with a share is not empty
    where there are groups enough.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        groups.setdefault(sample["hashes"]["layout"], []).append(sample)
    order = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest())
    wanted = {
        name: max(1, round(share * len(samples))) if share else 0 for name, share in zip(PARTS, shares, strict=True)
    }
    parts: Parts = {name: [] for name in PARTS}
    for position, group in enumerate(order):
        left = len(order) - position
        open_parts = [name for name in ("val", "test") if len(parts[name]) < wanted[name]]
        # The last group is left for training.
        name = open_parts[0] if open_parts and left > 1 else "train"
        parts[name] += groups[group]
    for part in parts.values():
        part.sort(key=lambda sample: str(sample["id"]))
    return parts


def refuse_copies(parts: Parts, root: Path) -> None:
    """Raise DataError if a validation or test screenshot is, byte for byte, one of another part."""
    seen: dict[str, tuple[str, str]] = {}
    copies = []
    for part, samples in parts.items():
        for sample in samples:
            first_part, first_id = seen.setdefault(sample["hashes"]["screenshot"], (part, sample["id"]))
            if first_part != part:
                copies.append(f"{sample['source']} is a copy of {first_part} sample {first_id}")
    if copies:
        more = [f"... and {len(copies) - LISTED} more"] if len(copies) > LISTED else []
        raise DataError(
            f"{len(copies)} validation or test samples are copies of samples of another part",
            where=str(root),
            why=printable("\n".join([*copies[:LISTED], *more])),
            do="remove the copies: a score on what was learned by heart says nothing",
        )


def fingerprint(parts: Parts) -> str:
    """Return a hash of all content, its parts and its order."""
    state = hashlib.blake2b(digest_size=16)
    for part, samples in parts.items():
        for sample in samples:
            line = "\0".join([part, sample["id"], *sample["hashes"].values()])
            state.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return state.hexdigest()


def content_hash(content: bytes) -> str:
    """Return a hash of a file's content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def no_samples(root: Path) -> DataError:
    """Build the answer to a folder in which there is nothing to read."""
    return DataError(
        "no samples were found",
        where=str(root),
        why="a sample is a folder with screenshot.png, structure.json and layout.json, or a pair NAME.png and NAME.gui",
        do="put samples into train/, val/ and test/ of this folder, or name another one with --data FOLDER",
    )

"""The files of the tiny task: a folder with train.txt, val.txt and test.txt, a sequence of tokens on each line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from trainkit.contracts import Finding
from trainkit.errors import DataError

Sequences = list[tuple[str, np.ndarray[Any, Any]]]
SPLITS = ("train", "val", "test")
LONGEST = 64


def read_sequences(path: Path, vocabulary: int) -> tuple[Sequences, list[Finding]]:
    """Return (name, tokens) of each usable line of a file, and what is wrong or notable about the others.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError("a file cannot be read", where=str(path), why=why, do="name a text file") from None
    found: Sequences = []
    findings: list[Finding] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        place = f"{path.name}:{number}"
        if fault := _fault(line, vocabulary):
            findings.append(Finding("not a sequence", place, fault))
            continue
        found.append((f"{path.stem}-{number}", np.array([int(word) for word in line.split()])))
        if (first := seen.setdefault(line.strip(), number)) != number:
            findings.append(Finding("duplicate", place, f"the same as line {first}", is_fault=False))
    return found, findings


def _fault(line: str, vocabulary: int) -> str:
    """Return what is wrong with a line, or ''."""
    words = line.split()
    if not words:
        return "the line is empty"
    if len(words) > LONGEST:
        return f"{len(words)} tokens; at most {LONGEST} are read"
    allowed = set(map(str, range(vocabulary)))
    wrong = [word for word in words if word not in allowed]
    return f"{wrong[0]!r} is no number below {vocabulary}" if wrong else ""


def write_sequences(folder: Path, counts: Iterable[int] = (12, 4, 4), vocabulary: int = 13) -> Path:
    """Write a small data set into a folder and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for salt, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        generator = np.random.default_rng(salt)
        lines = [" ".join(map(str, generator.integers(0, vocabulary, 3 + i % 5))) for i in range(count)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def fingerprint(folder: Path) -> str:
    """Return a hash of the content of a data set."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update((folder / f"{split}.txt").read_bytes() + b"\0")
    return digest.hexdigest()


def bars(tokens: np.ndarray[Any, Any], vocabulary: int) -> np.ndarray[Any, Any]:
    """Return a picture [2 V, 12 L, 3] of a sequence: for each token a bar of its height and colour."""
    height = 2 * vocabulary
    picture = np.full((height, 12 * len(tokens), 3), 255, dtype=np.uint8)
    for place, token in enumerate(tokens.tolist()):
        colour = [40 + 15 * token, 90, 235 - 15 * token]
        picture[height - 2 * (token + 1) :, 12 * place + 1 : 12 * place + 11] = colour
    return picture

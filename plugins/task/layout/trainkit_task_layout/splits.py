"""Which sample belongs to which part: parts chosen by hash, completed where one lacks, and free of copies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from trainkit.errors import DataError

from .files import content_hash

BadSamples = Literal["stop", "skip"]
PARTS = ("train", "val", "test")
DIVIDED = "the samples were divided 80/10/10 by the hash of their layouts"
Parts = dict[str, list[dict[str, Any]]]


def complete_parts(parts: Parts, root: Path) -> list[str]:
    """Take a validation part out of the training part where the data has none, and return what to tell of it.

    Raises:
        DataError: there are too few samples to learn from and to validate on.
    """
    if parts["train"] and parts["val"]:
        return []
    if not parts["train"]:
        raise DataError("there are no training samples", where=str(root), do="put samples into train/")
    if len(parts["train"]) == 1:
        raise DataError(
            "there is one training sample, and none to validate on",
            where=str(root),
            why="a run decides about its best checkpoint on samples that it does not learn from",
            do="add samples: at least one to learn from and one in val/; some dozens are a sensible start",
        )
    total = len(parts["train"])
    divided = divide(parts["train"], shares=(0.9, 0.1, 0.0))
    if not divided["val"]:
        raise DataError(
            "all training samples are the same, and there is none to validate on",
            where=str(root),
            do="add samples that differ, or a val/ folder",
        )
    parts["train"], parts["val"] = divided["train"], divided["val"]
    return [f"no validation samples: {len(parts['val'])} of the {total} training samples serve as such"]


def divide(samples: Sequence[dict[str, Any]], shares: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> Parts:
    """Return train, val and test parts by the hash of the samples' content: the same for everyone, in any order.

    Samples of equal layout or equal screenshot stay together, so that no part holds an answer to another. A part with a
    share is not empty where there are groups enough.
    """
    groups = _groups(samples)
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


def _groups(samples: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the samples that hang together, each group under the least hash of a layout in it."""
    least: dict[str, str] = {}

    def leader(layout: str) -> str:
        while least.setdefault(layout, layout) != layout:
            layout = least[layout]
        return layout

    of_screenshot: dict[str, str] = {}
    for sample in samples:
        layout = leader(sample["hashes"]["layout"])
        screenshot = sample["hashes"].get("screenshot")
        if screenshot is not None:
            first, second = sorted((leader(of_screenshot.setdefault(screenshot, layout)), layout))
            least[second] = first
    groups: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        groups.setdefault(leader(sample["hashes"]["layout"]), []).append(sample)
    return groups


def identity(sample: dict[str, Any]) -> tuple[str, str]:
    """Return the hash that tells a copy: of the picture's bytes, or of the boxes where there is no picture."""
    hashes = sample["hashes"]
    return ("screenshot", hashes["screenshot"]) if "screenshot" in hashes else ("boxes", hashes["boxes"])


def copies(parts: Parts) -> dict[int, tuple[dict[str, Any], str]]:
    """Return, by their id(), the samples whose bytes occur in an earlier part, each with what it is a copy of."""
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    found = {}
    for part, samples in parts.items():
        for sample in samples:
            first_part, first_id = seen.setdefault(identity(sample), (part, str(sample["id"])))
            if first_part != part:
                found[id(sample)] = (sample, f"{first_part} sample {first_id}")
    return found


def likenesses(parts: Parts) -> Iterator[tuple[str, str, str]]:
    """Yield (source, rule, text) of samples that are suspiciously like another one, and may yet be meant."""
    bytes_seen: dict[tuple[str, tuple[str, str]], str] = {}
    pixels_seen: dict[str, tuple[str, str]] = {}
    layouts_seen: dict[str, tuple[str, str]] = {}
    for part, samples in parts.items():
        for sample in samples:
            name, source = str(sample["id"]), sample["source"]
            twin = bytes_seen.setdefault((part, identity(sample)), name)
            if twin != name:
                yield source, "duplicate", f"has the very {identity(sample)[0]} of {part} sample {twin}, byte for byte"
            if sample["image"] is not None:
                other_part, other = pixels_seen.setdefault(content_hash(sample["image"].tobytes()), (part, name))
                if other_part != part:
                    yield source, "same picture across splits", f"shows the very picture of {other_part} sample {other}"
            other_part, other = layouts_seen.setdefault(sample["hashes"]["layout"], (part, name))
            if other_part != part:
                yield source, "same layout across splits", f"has the very layout of {other_part} sample {other}"


def fingerprint(parts: Parts) -> str:
    """Return a hash of all content, its parts and its order."""
    state = hashlib.blake2b(digest_size=16)
    for part, samples in parts.items():
        for sample in samples:
            line = "\0".join([part, str(sample["id"]), *sample["hashes"].values()])
            state.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return state.hexdigest()


def no_samples(root: Path) -> DataError:
    """Build the answer to a folder in which there is nothing to read."""
    return DataError(
        "no samples were found",
        where=str(root),
        why="a sample is a folder with screenshot.png, structure.json and layout.json (or one example.json), "
        "a pair NAME.png and NAME.gui, or an entry with boxes in a JSON list",
        do="put samples into train/, val/ and test/ of this folder, or name another one with --data FOLDER",
    )

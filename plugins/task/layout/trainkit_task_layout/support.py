"""The support bank: screenshots of training pages, some of each class, which a few-shot model looks at."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from trainkit.contracts import Sample
from trainkit.errors import UsageError

from .clusters import Classes

MOST_CLASSES = 8
PER_CLASS = 16
MOST_SIDE = 128


@dataclass(frozen=True)
class Supporter:
    """Hold a training page of the bank: its id, the hash of its screenshot's file, its class, its picture as PNG."""

    id: str
    hash: str
    group: int
    png: str


class Support:
    """Choose a few training pages of each class, and tell which of them a page may look at.

    The bank is drawn from the training split alone: its members are those nearest to the centres of their classes. It
    is small enough to be kept with the run, so that a model answers without its data. A page never looks at itself, nor
    an augmented copy at its original: those of the same id or the same screenshot are left out.  [reading: 4.14]

    Args:
        most: k, the most pictures that a page looks at.
        side: of the pictures that are kept, in pixels.
    """

    def __init__(self, most: int, side: int) -> None:
        self.most, self.side = most, side
        self.classes = Classes()
        self.bank: tuple[Supporter, ...] = ()

    def fit(self, samples: Sequence[Sample]) -> None:
        """Learn classes and choose the bank; raise UsageError where pages have no screenshots."""
        with_pictures = [sample for sample in samples if sample["image"] is not None]
        if not with_pictures:
            raise UsageError(
                f"task.support = {self.most} needs screenshots",
                why="the training pages have none to look at",
                do="leave the option out",
            )
        count = max(1, min(MOST_CLASSES, len(with_pictures) // (2 * (self.most + 1))))
        self.classes = Classes.learned(with_pictures, count)
        members: dict[int, list[tuple[float, str, Sample]]] = {}
        seen: set[str] = set()
        for sample in with_pictures:
            key = screenshot_hash(sample) or str(sample["id"])
            if key not in seen:
                seen.add(key)
                distances = self.classes.distances(sample)
                nearest = int(distances.argmin())
                members.setdefault(nearest, []).append((float(distances[nearest]), str(sample["id"]), sample))
        self.bank = tuple(
            Supporter(name, screenshot_hash(sample), group, as_png(sample["image"], self.side))
            for group in sorted(members)
            for _, name, sample in sorted(members[group], key=lambda member: member[:2])[
                : max(PER_CLASS, self.most + 1)
            ]
        )

    def mask(self, samples: Sequence[Sample]) -> Tensor:
        """Return which pictures of the bank each sample may look at, [B, n] bool: its class without itself."""
        rows = []
        for sample in samples:
            group = int(self.classes.distances(sample).argmin())
            name, its_hash = str(sample["id"]), screenshot_hash(sample)
            rows.append([s.group == group and s.id != name and (not s.hash or s.hash != its_hash) for s in self.bank])
        return torch.tensor(rows, dtype=torch.bool)

    def pictures(self) -> Tensor:
        """Return the pictures of the bank, [n, S, S, 3] bytes."""
        return torch.tensor(np.stack([from_png(supporter.png) for supporter in self.bank]))

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as JSON; pictures are PNG in base64."""
        return {"classes": self.classes.state_dict(), "bank": [asdict(supporter) for supporter in self.bank]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.classes = Classes(**state["classes"])
        self.bank = tuple(Supporter(**supporter) for supporter in state["bank"])


def support_side(image_size: int, patch: int) -> int:
    """Return the side of support pictures: that of the screenshots, at most 128 pixels, a multiple of the patch."""
    return max(patch, min(image_size, MOST_SIDE) // patch * patch)


def screenshot_hash(sample: Sample) -> str:
    """Return the hash of a sample's screenshot as it was read, whatever was done to it since; '' where unknown."""
    return str(sample.get("hashes", {}).get("screenshot", ""))


def as_png(image: np.ndarray, side: int) -> str:
    """Return a picture [S, S, 3] of bytes, resized, as PNG in base64."""
    held = io.BytesIO()
    Image.fromarray(image).resize((side, side), Image.Resampling.BOX).save(held, "PNG", optimize=True)
    return base64.b64encode(held.getvalue()).decode("ascii")


def from_png(text: str) -> np.ndarray:
    """Return the picture [S, S, 3] of bytes that `as_png` wrote."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text, validate=True))).convert("RGB"))

"""What is logged: values gathered on the device between two rows, and rows by tag."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from .ranks.world import ALONE

if TYPE_CHECKING:
    from torch import Tensor

    from .contracts import LossOutput
    from .ranks.world import World

_log = logging.getLogger(__name__)

Pair = tuple["Tensor | float", "Tensor | float"]


class LossPairs:
    """Collect losses and their parts as (sum, count) pairs; nothing is read from the device before the means.

    Args:
        pairs: by the name of a part, '' for the whole.
    """

    def __init__(self, pairs: Mapping[str, list[Pair]] | None = None) -> None:
        self.by_name: dict[str, list[Pair]] = dict(pairs or {})
        self.batches = 0
        self.inactive: dict[str, int] = {}
        self.sum: Callable[[Iterable[float]], float] = sum

    def add(self, loss: LossOutput) -> None:
        """Take the loss of a batch."""
        self.by_name.setdefault("", []).append((loss.sum.detach(), loss.count))
        for name, pair in loss.parts.items():
            self.by_name.setdefault(name, []).append(pair)
        self.batches += 1
        for name in loss.inactive:
            self.inactive[name] = self.inactive.get(name, 0) + 1

    def means(self, split: str) -> dict[str, float]:
        """Return the mean losses of a split by tag."""
        tags = {name: f"{split}/loss" + (f"/{name}" if name else "") for name in self.by_name}
        return {tags[name]: mean_of(pairs, self.sum) for name, pairs in self.by_name.items()}

    def pooled(self, world: World) -> LossPairs:
        """Return the pairs of all ranks, the same on each."""
        if world.is_alone:
            return self
        own = {name: [(float(s), float(c)) for s, c in pairs] for name, pairs in self.by_name.items()}
        pooled = LossPairs()
        pooled.sum = exact_sum
        for found in world.everyones(own):
            for name, pairs in found.items():
                pooled.by_name.setdefault(name, []).extend((s, c) for s, c in pairs)
        return pooled


class InactiveTerms:
    """Count the batches in which a wanted term of the loss could not be computed; warn of each term once a run."""

    def __init__(self) -> None:
        self.batches: dict[str, int] = {}
        self.missed: dict[str, dict[str, int]] = {}

    def note(self, split: str, missed: Mapping[str, int], batches: int = 1) -> None:
        """Note in how many of some batches of a split terms were missing, by name."""
        self.batches[split] = self.batches.get(split, 0) + batches
        for name, times in missed.items():
            if name not in self.missed:
                _log.warning("the loss's term '%s' is left out: a batch of %s lacks what it reads", name, split)
            counts = self.missed.setdefault(name, {})
            counts[split] = counts.get(split, 0) + times

    def shares(self) -> dict[str, dict[str, float]]:
        """Return for each term that was ever missing the share of batches without it, by split."""
        return {
            name: {split: times / self.batches[split] for split, times in counts.items()}
            for name, counts in sorted(self.missed.items())
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, as JSON."""
        return {"batches": dict(self.batches), "missed": {name: dict(counts) for name, counts in self.missed.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.batches = dict(state["batches"])
        self.missed = {name: dict(counts) for name, counts in state["missed"].items()}


class Gathered:
    """Gather losses and gradient norms as tensors; nothing is read from the device until a row is due."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what was gathered."""
        self.losses = LossPairs()
        self.weights: dict[str, Any] = {}
        self.norms: list[Tensor | float] = []
        self.extra: dict[str, Any] = {}

    def add_loss(self, loss: LossOutput) -> None:
        """Take the loss of a micro-batch."""
        self.losses.add(loss)
        self.weights = {name: torch.as_tensor(weight).detach() for name, weight in loss.weights.items()}

    def take(self, world: World = ALONE) -> dict[str, float] | None:
        """Return the row of what was gathered on all ranks, by tag, and begin anew; None if there is nothing."""
        losses = self.losses.pooled(world)
        if not losses.by_name:
            return None
        row = losses.means("train")
        row |= {f"train/weight/{name}": float(weight) for name, weight in self.weights.items()}
        if self.norms:
            row["train/grad_norm"] = float(torch.tensor([float(norm) for norm in self.norms]).mean())
        row |= {tag: float(value) for tag, value in self.extra.items()}
        self.begin_anew()
        return row

    def state_dict(self, world: World = ALONE) -> dict[str, Any]:
        """Return what all ranks gathered, so that the row of an interrupted interval is as if it were not."""
        return {
            "pairs": {
                name: [[torch.as_tensor(s), torch.as_tensor(c)] for s, c in pairs]
                for name, pairs in self.losses.pooled(world).by_name.items()
            },
            "weights": self.weights,
            "norms": [float(norm) for norm in self.norms],
            "extra": {tag: float(value) for tag, value in self.extra.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        pairs = {name: [(pair[0], pair[1]) for pair in found] for name, found in state["pairs"].items()}
        self.losses = LossPairs(pairs)
        self.weights, self.norms, self.extra = dict(state["weights"]), list(state["norms"]), dict(state["extra"])


def exact_sum(numbers: Iterable[float]) -> float:
    """Return a sum whose every bit is right, whatever the order: that in which ranks were saved may be another."""
    values = list(numbers)
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return sum(values)


def mean_of(pairs: list[Pair], add: Callable[[Iterable[float]], float] = sum) -> float:
    """Return the mean of (sum, count) pairs: all sums over all counts; NaN where nothing was counted."""
    total = add(float(s) for s, _ in pairs)
    count = add(float(c) for _, c in pairs)
    return total / count if count else float("nan")


def learning_rates(groups: list[dict[str, Any]]) -> dict[str, float]:
    """Return the tags of the learning rate: the first group's, and each group's own where they differ."""
    rates = [float(group["lr"]) for group in groups]
    row = {"train/learning_rate": rates[0]}
    if len(set(rates)) > 1:
        names = [str(group.get("name", place)) for place, group in enumerate(groups)]
        # Groups that share a name are told apart by their place, so that none hides another.
        tags = [name if names.count(name) == 1 else f"{name}-{place}" for place, name in enumerate(names)]
        row |= {f"train/learning_rate/{tag}": rate for tag, rate in zip(tags, rates, strict=True)}
    return row

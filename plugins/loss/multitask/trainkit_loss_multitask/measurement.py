"""What one batch says: every term as a sum and a count, and what could not be measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor
from trainkit import LossOutput
from trainkit.contracts import IGNORED_LABEL

Pair = tuple[Tensor, Tensor | float]
Numbers = Mapping[str, Tensor | float]


def at_count(pair: Pair, count: Tensor | float) -> Tensor:
    """Return the sum of a term as if it had been counted by `count`: its mean times that; 0 where it has no count."""
    total, own = pair[0], torch.as_tensor(pair[1], device=pair[0].device)
    return total * (count / torch.where(own > 0, own, 1))


class Measurement:
    """Collect the terms of a batch.

    Args:
        labels: [B, ...]; those that are not -100 are counted.

    Attributes:
        lengths: [B] real labels of each sample.
        count: real labels of the batch.
        terms: unweighted terms, each a (sum, count) pair with its gradient.
        parts: the same detached, and the parts of inner losses under 'term/part'.
        missing: terms, and parts of inner losses, that were wanted and lack what they read.
    """

    def __init__(self, labels: Tensor) -> None:
        self.real = labels != IGNORED_LABEL
        self.lengths = self.real.reshape(len(labels), -1).sum(1)
        self.count = self.lengths.sum()
        self.terms: dict[str, Pair] = {}
        self.parts: dict[str, tuple[Tensor, Tensor | float]] = {}
        self.missing: list[str] = []
        self._samples: dict[str, Callable[[], Tensor | None]] = {}

    def add(self, name: str, pair: Pair) -> None:
        """Take a term."""
        self.terms[name] = pair
        self.parts[name] = (pair[0].detach(), pair[1])

    def add_samples(self, name: str, losses: Tensor) -> None:
        """Take a term of samples [B]: weighed by their real labels it is, like tokens, a sum over labels [reading]."""
        self.add(name, ((losses * self.lengths).sum(), self.count))
        self._samples[name] = losses.detach

    def add_inner(self, name: str, output: LossOutput, pair: Pair | None = None, without: Collection[str] = ()) -> None:
        """Take the output of an inner loss as a term, or a part of it: without terms that are looked at elsewhere."""
        self.add(name, (output.sum, output.count) if pair is None else pair)
        self.parts |= {f"{name}/{part}": found for part, found in output.parts.items() if part not in without}
        self.missing += [f"{name}/{part}" for part in output.inactive if part not in without]
        self._samples[name] = lambda: output.per_sample

    def per_sample(self, weights: Numbers) -> Tensor | None:
        """Return the weighted sum of the terms that tell losses of samples [B]; None if an inner loss cannot tell."""
        found = {name: samples() for name, samples in self._samples.items()}
        total = torch.zeros(len(self.lengths), device=self.lengths.device)
        for name, losses in found.items():
            if losses is None:
                return None
            total = total + weights[name] * losses
        return total.detach()

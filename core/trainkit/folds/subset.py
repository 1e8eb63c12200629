"""Samples of one or several datasets, chosen by index: what a fold trains on and what it validates on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from trainkit.contracts import Batch, Dataset, Drawn, Sample

Places = Sequence[tuple[int, int]]


class Subset:
    """Be a dataset of samples of other ones, in a given order, with all that those know about each.

    `ids`, `difficulty`, `quality`, `groups` and `lengths` are there if all of the parts have them, else None.

    Args:
        parts: the datasets.
        places: for each sample its part and its index there.
    """

    def __init__(self, parts: Sequence[Dataset], places: Places) -> None:
        self.parts, self.places = list(parts), list(places)
        self.ids = self._known("ids")
        self.difficulty = self._known("difficulty")
        self.quality = self._known("quality")
        self.groups = self._known("groups")

    @classmethod
    def joined(cls, parts: Sequence[Dataset]) -> Subset:
        """Return all samples of datasets, one dataset after the other."""
        return cls(parts, [(part, index) for part, dataset in enumerate(parts) for index in range(len(dataset))])

    def of(self, indices: Sequence[int]) -> Subset:
        """Return those of the samples that have these indices, in their order."""
        return Subset(self.parts, [self.places[index] for index in indices])

    def name(self, index: int) -> str:
        """Return the name of a sample: its id where there are ids, else its number."""
        return str(self.ids[index]) if self.ids is not None else str(index)

    def _known(self, attribute: str) -> list[Any] | None:
        known: list[Any] = [getattr(part, attribute, None) for part in self.parts]
        if any(values is None for values in known):
            return None
        return [known[part][index] for part, index in self.places]

    @property
    def lengths(self) -> list[Any] | None:
        """Return the length of each sample, once its parts know it: a task may learn it from the training samples."""
        return self._known("lengths")

    def __len__(self) -> int:
        return len(self.places)

    def __getitems__(self, indices: list[int]) -> Sequence[Sample] | Batch:
        return self._gathered(indices, None)

    def drawn(self, indices: list[int], numbers: Sequence[int]) -> Sequence[Sample] | Batch:
        """Return samples of draws, as far as the parts tell draws apart."""
        return self._gathered(indices, numbers)

    def _gathered(self, indices: list[int], numbers: Sequence[int] | None) -> Sequence[Sample] | Batch:
        asked = [self.places[index] for index in indices]
        order = list(dict.fromkeys(part for part, _ in asked))
        found = {part: self._of_part(part, asked, numbers) for part in order}
        if len(order) == 1:
            return found[order[0]]
        batches = [items for items in found.values() if isinstance(items, Mapping)]
        if batches:
            return _joined(
                batches, [place for part in order for place, (owner, _) in enumerate(asked) if owner == part]
            )
        samples: dict[int, Iterator[Any]] = {part: iter(items) for part, items in found.items()}
        return [next(samples[part]) for part, _ in asked]

    def _of_part(self, part: int, asked: Places, numbers: Sequence[int] | None) -> Sequence[Sample] | Batch:
        rows = [row for row, (owner, _) in enumerate(asked) if owner == part]
        indices, dataset = [asked[row][1] for row in rows], self.parts[part]
        if numbers is None or not isinstance(dataset, Drawn):
            return dataset.__getitems__(indices)
        return dataset.drawn(indices, [numbers[row] for row in rows])


def _joined(batches: Sequence[Batch], places: Sequence[int]) -> Batch:
    """Return batches as one; row i of them, one batch after the other, belongs at places[i]."""
    order = torch.tensor(places).argsort()
    return {
        name: torch.cat([batch[name] for batch in batches]).index_select(0, order)
        if isinstance(value, torch.Tensor)
        else value
        for name, value in batches[0].items()
    }

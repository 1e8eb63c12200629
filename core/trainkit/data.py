"""From samples to batches: which samples an epoch draws, in which order, and how they become tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .bucketing import bucketed
from .contracts import SAMPLE_ID, Augmenter, Batch, BatchAugmenter, Dataset, Drawn, Sample
from .errors import UsageError
from .randomness import Purpose, mixed, permutation, variant_generator

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from .plan import Selection


class TensorData:
    """Hold samples as tensors; a batch is one gather, with no Python per sample.

    Args:
        tensors: by name, each with the samples along dimension 0.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)
        lengths = {len(tensor) for tensor in self.tensors.values()}
        if len(lengths) != 1:
            raise ValueError(f"tensors of one length are needed, got {sorted(lengths)}")
        self.length = lengths.pop()

    def __len__(self) -> int:
        return self.length

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        rows = torch.tensor(indices)
        return {name: tensor.index_select(0, rows) for name, tensor in self.tensors.items()}


@dataclass(frozen=True)
class Draws:
    """Hold an epoch's draws in order: drawn[i] = (sample, variant)."""

    samples: Tensor
    variants: Tensor

    def __len__(self) -> int:
        return len(self.samples)

    def micro_batches(self, batch_size: int) -> int:
        """Return the number of micro-batches, the last one possibly short."""
        return math.ceil(len(self) / batch_size)


def select(selection: Selection, dataset: Dataset, seed: int, epoch: int) -> list[int]:
    """Return the indices that a selection admits in an epoch, ascending; never none.

    Ties in difficulty go to the smaller index. The random fraction is a function of (seed, epoch).
    """
    indices = list(range(len(dataset)))
    quality: Sequence[float] | None = getattr(dataset, "quality", None)
    if selection.min_quality is not None and quality is not None:
        admitted = [i for i in indices if quality[i] >= selection.min_quality]
        indices = admitted or [max(indices, key=lambda i: quality[i])]
    difficulty: Sequence[float] | None = getattr(dataset, "difficulty", None)
    if selection.easiest < 1 and difficulty is not None:
        easiest = sorted(indices, key=lambda i: (difficulty[i], i))
        indices = sorted(easiest[: math.ceil(len(indices) * selection.easiest)])
    if selection.fraction < 1:
        kept = math.ceil(len(indices) * selection.fraction)
        generator = torch.Generator().manual_seed(mixed(seed, Purpose.SELECTION, epoch))
        drawn = torch.randperm(len(indices), generator=generator)[:kept].tolist()
        indices = sorted(indices[i] for i in drawn)
    return indices


def draw(indices: Sequence[int], variants: int, seed: int, epoch: int) -> Draws:
    """Return an epoch's draws: each admitted sample `variants` times, in an order given by (seed, epoch).

    Variant 0 is the sample as it is. With one variant an epoch, the epoch's number is the variant, so that a sample is
    seen as it is in the first epoch and augmented anew in each later one.
    """
    order = permutation(seed, epoch, len(indices) * variants)
    samples = torch.tensor(list(indices))[order % len(indices)]
    chosen = order // len(indices) if variants > 1 else torch.full_like(order, epoch)
    return Draws(samples, chosen)


def alike(draws: Draws, dataset: Dataset, batch_size: int, buckets: int, seed: int, epoch: int) -> Draws:
    """Return an epoch's draws with samples of like length in a batch, where the dataset knows `lengths`."""
    lengths: Sequence[float] | None = getattr(dataset, "lengths", None)
    if lengths is None:
        return draws
    order = bucketed(draws.samples, lengths, batch_size, buckets, seed, epoch)
    return Draws(draws.samples[order], draws.variants[order])


@dataclass(frozen=True)
class BatchMaker:
    """Turn draws into a batch: read, augment, collate."""

    dataset: Dataset
    collate: Callable[[Sequence[Sample]], Batch] | None
    augmenters: Sequence[Augmenter] = ()
    seed: int = 0

    def __call__(self, epoch: int, samples: Tensor, variants: Tensor | None = None) -> dict[str, Any]:
        """Return the batch of these samples; with variants, those other than 0 are augmented."""
        indices = samples.tolist()
        items = self._read(indices, variants, epoch)
        generators: list[Any] = [None] * len(indices)
        if self.augmenters and variants is not None:
            generators = [self._generator(*each, epoch) for each in zip(indices, variants.tolist(), strict=True)]
        if isinstance(items, Mapping):
            return {**self._augmented_batch(items, generators), SAMPLE_ID: samples}
        if self.collate is None:
            raise TypeError("a dataset that answers with samples needs a task that collates them")
        augmented = [self._augmented(*each) for each in zip(items, generators, strict=True)]
        return {**self.collate(augmented), SAMPLE_ID: samples}

    def _read(self, indices: list[int], variants: Tensor | None, epoch: int) -> Sequence[Sample] | Batch:
        if variants is None or not isinstance(self.dataset, Drawn):
            return self.dataset.__getitems__(indices)
        pairs = zip(indices, variants.tolist(), strict=True)
        return self.dataset.drawn(indices, [mixed(self.seed, Purpose.DRAW, epoch, *pair) for pair in pairs])

    def _generator(self, index: int, variant: int, epoch: int) -> np.random.Generator | None:
        return variant_generator(self.seed, epoch, index, variant) if variant else None

    def _augmented(self, sample: Sample, generator: np.random.Generator | None) -> Sample:
        if generator is None:
            return sample
        for augmenter in self.augmenters:
            sample = augmenter(sample, generator)
        return sample

    def _augmented_batch(self, batch: Batch, generators: Sequence[np.random.Generator | None]) -> Batch:
        if not any(generators):
            return batch
        for augmenter in self.augmenters:
            if not isinstance(augmenter, BatchAugmenter):
                raise UsageError(
                    f"augmenter {type(augmenter).__name__} changes single samples, and the data comes in whole batches",
                    do="leave it out, or give it the method augment_batch(batch, generators)",
                )
            batch = augmenter.augment_batch(batch, generators)
        return batch


@dataclass(frozen=True)
class EpochBatches:
    """Hold the micro-batches of an epoch, each a function of its number: a worker process can make any of them.

    Args:
        maker: makes a batch of draws.
        draws: of the epoch.
        epoch: its number.
        batch_size: samples of a micro-batch, over all ranks.
        share: the rank that asks, and how many there are: it has every so many-th sample of a micro-batch. Where a
            short one leaves none for it, the answer is empty.
    """

    maker: BatchMaker
    draws: Draws
    epoch: int
    batch_size: int
    share: tuple[int, int] = (0, 1)

    def __len__(self) -> int:
        return self.draws.micro_batches(self.batch_size)

    def __getitem__(self, number: int) -> dict[str, Any]:
        rank, ranks = self.share
        part = slice(number * self.batch_size + rank, (number + 1) * self.batch_size, ranks)
        if ranks > 1 and not len(self.draws.samples[part]):
            return {}
        return self.maker(self.epoch, self.draws.samples[part], self.draws.variants[part])

    def iterate(self, start: int, workers: int, pin_memory: bool, patience: float = 0.0) -> Iterator[dict[str, Any]]:
        """Yield the micro-batches from number `start` on: nothing before it is read.

        Args:
            start: the first one.
            workers: how many processes prepare them.
            pin_memory: put them where a GPU fetches them faster.
            patience: seconds after which a process that gives none is an error; 0 waits for ever.
        """
        numbers = range(start, len(self))
        if workers == 0:
            return map(self.__getitem__, numbers)
        from torch.utils.data import DataLoader

        source: Any = self
        loader = DataLoader(
            source,
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            pin_memory=pin_memory,
            timeout=patience,
            # Its own: a start of processes must not draw from the one that dropout draws from.
            generator=torch.Generator(),
        )
        return iter(loader)


def windows(batches: Iterator[dict[str, Any]], accumulate: int) -> Iterator[list[dict[str, Any]]]:
    """Group micro-batches into the windows of optimizer steps; the last window may be short."""
    window: list[dict[str, Any]] = []
    for batch in batches:
        window.append(batch)
        if len(window) == accumulate:
            yield window
            window = []
    if window:
        yield window


def evaluation_batches(dataset: Dataset, batch_size: int, limit: int | None = None) -> tuple[Tensor, ...]:
    """Return the indices of evaluation batches: every sample, or the first ones, once, none padded.

    Where the dataset knows `lengths`, samples of like length are together, the longest first: the memory that an
    evaluation needs, it needs at its begin. Elsewhere they are in order.
    """
    length = len(dataset) if limit is None else min(limit, len(dataset))
    lengths: Sequence[float] | None = getattr(dataset, "lengths", None)
    order = torch.arange(length)
    if lengths is not None:
        order = torch.argsort(torch.as_tensor(lengths[:length]), descending=True, stable=True)
    return order.split(batch_size) if length else ()

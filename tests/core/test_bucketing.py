"""Batches of like length: less padding, every draw once, a pure function of seed and epoch."""

from __future__ import annotations

import pytest
import torch
from trainkit.bucketing import bucketed
from trainkit.data import BatchMaker, Draws, alike, draw
from trainkit.folds.subset import Subset


def lengths_of(count: int) -> list[int]:
    generator = torch.Generator().manual_seed(7)
    return (torch.rand(count, generator=generator) * 200).long().add(1).tolist()


def waste(order: torch.Tensor, lengths: list[int], size: int) -> float:
    """Return the share of places of all batches that is padding."""
    ordered = [lengths[i] for i in order.tolist()]
    batches = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    return 1 - sum(ordered) / sum(max(batch) * len(batch) for batch in batches)


@pytest.mark.parametrize("count", [1, 7, 8, 64, 1003])
def test_every_draw_comes_once(count):
    samples = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    order = bucketed(samples, lengths_of(count), 8, 10, seed=3, epoch=2)
    assert sorted(order.tolist()) == list(range(count))


def test_padding_falls_and_batches_stay_mixed():
    lengths = lengths_of(4000)
    samples = torch.randperm(4000, generator=torch.Generator().manual_seed(1))
    order = bucketed(samples, lengths, 16, 100, seed=3, epoch=0)
    assert waste(samples, lengths, 16) > 0.4
    assert waste(samples[order], lengths, 16) < 0.02
    # The batches do not ascend: neighbours in time are of any length.
    firsts = torch.tensor([lengths[i] for i in samples[order].tolist()])[::16]
    steps = (firsts.diff() > 0).float().mean()
    assert 0.4 < steps < 0.6


def test_it_follows_from_seed_and_epoch_alone():
    samples, lengths = torch.arange(500), lengths_of(500)
    first = bucketed(samples, lengths, 8, 10, seed=3, epoch=0)
    assert torch.equal(first, bucketed(samples, lengths, 8, 10, seed=3, epoch=0))
    assert not torch.equal(first, bucketed(samples, lengths, 8, 10, seed=3, epoch=1))
    assert not torch.equal(first, bucketed(samples, lengths, 8, 10, seed=4, epoch=0))


def test_the_short_batch_stays_last():
    lengths = lengths_of(35)
    order = bucketed(torch.arange(35), lengths, 8, 100, seed=0, epoch=0)
    # One chunk: its short end are the longest.
    assert sorted(lengths[i] for i in order[32:].tolist()) == sorted(lengths)[32:]


@pytest.mark.parametrize("buckets", [0, 1])
def test_below_two_buckets_nothing_changes(buckets):
    order = bucketed(torch.arange(50).flip(0), lengths_of(50), 8, buckets, seed=0, epoch=0)
    assert order.tolist() == list(range(50))


class Texts:
    """Be a dataset whose samples differ from draw to draw, and which knows their lengths."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitems__(self, indices: list[int]) -> list[dict]:
        return [{"x": (index, None)} for index in indices]

    def drawn(self, indices: list[int], numbers: list[int]) -> list[dict]:
        return [{"x": pair} for pair in zip(indices, numbers, strict=True)]


def xs(samples):
    return {"x": [sample["x"] for sample in samples]}


def test_draws_keep_sample_and_variant_together():
    lengths = lengths_of(40)
    draws = draw(range(40), 3, seed=1, epoch=0)
    found = alike(draws, Texts(lengths), 4, 10, 1, 0)
    pairs = lambda some: sorted(zip(some.samples.tolist(), some.variants.tolist(), strict=True))  # noqa: E731
    assert pairs(found) == pairs(draws)
    assert found.samples.tolist() != draws.samples.tolist()
    assert alike(draws, range(40), 4, 10, 1, 0) is draws


def test_draws_are_told_apart_by_seed_epoch_sample_and_variant():
    data = Texts([1] * 6)
    samples, variants = torch.tensor([3, 3, 5]), torch.tensor([0, 1, 0])

    def numbers(seed=0, epoch=0, data=data):
        return BatchMaker(data, xs, seed=seed)(epoch, samples, variants)["x"]

    first = numbers()
    assert [index for index, _ in first] == [3, 3, 5]
    assert len({number for _, number in first} | {n for _, n in numbers(epoch=1)} | {n for _, n in numbers(1)}) == 9
    assert numbers() == first
    # An evaluation has no draws: its samples are what they are.
    assert BatchMaker(data, xs)(0, samples)["x"] == [(3, None), (3, None), (5, None)]


def test_folds_pass_lengths_and_draws_on():
    joined = Subset.joined([Texts([10, 20]), Texts([30])]).of([2, 0])
    assert joined.lengths == [30, 10]
    assert joined.drawn([0, 1], [7, 8]) == [{"x": (0, 7)}, {"x": (0, 8)}]
    assert Subset.joined([Texts([1]), range(2)]).lengths is None


def test_draws_is_what_the_loop_makes():
    assert isinstance(alike(draw(range(8), 1, 0, 0), Texts([1] * 8), 2, 4, 0, 0), Draws)

"""Order and randomness are pure functions; batches do not depend on who makes them."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from torch import tensor
from trainkit import UsageError
from trainkit.data import BatchMaker, EpochBatches, TensorData, draw, evaluation_batches, select, windows
from trainkit.plan import Selection
from trainkit.randomness import Purpose, mixed, permutation, variant_generator
from trainkit.testing.tiny import TinyData, TinyTask


class Noise:
    """Shift every token by a random amount."""

    reads = frozenset({"tokens"})

    def __call__(self, sample: dict, generator: np.random.Generator) -> dict:
        return {"tokens": (sample["tokens"] + generator.integers(0, 5, len(sample["tokens"]))) % 13}


def test_no_two_uses_share_a_stream() -> None:
    words = itertools.product(range(3), Purpose, range(20), range(20))
    drawn = Counter(mixed(seed, purpose, a, b) for seed, purpose, a, b in words)
    assert max(drawn.values()) == 1


def test_permutation_is_a_function_of_seed_and_epoch() -> None:
    torch.manual_seed(1)
    first = permutation(7, 3, 1000)
    torch.manual_seed(2)
    assert torch.equal(first, permutation(7, 3, 1000))
    assert sorted(first.tolist()) == list(range(1000))
    assert not torch.equal(first, permutation(7, 4, 1000))
    assert not torch.equal(first, permutation(8, 3, 1000))


def test_variants_of_different_draws_differ() -> None:
    draws = {
        tuple(variant_generator(seed, epoch, sample, variant).integers(0, 2**62, 2))
        for seed, epoch, sample, variant in itertools.product(range(2), range(8), range(25), range(25))
    }
    assert len(draws) == 2 * 8 * 25 * 25


def test_each_sample_is_drawn_once_a_variant() -> None:
    draws = draw([4, 7, 9], variants=5, seed=0, epoch=2)
    pairs = Counter(zip(draws.samples.tolist(), draws.variants.tolist(), strict=True))
    assert pairs == Counter(itertools.product([4, 7, 9], range(5)))


def test_one_variant_an_epoch_is_the_epochs_number() -> None:
    assert draw([0, 1], 1, 0, 0).variants.tolist() == [0, 0]
    assert draw([0, 1], 1, 0, 3).variants.tolist() == [3, 3]


def test_selection_admits_easiest_then_quality_then_fraction() -> None:
    data = TinyData(20, 1)
    easy = select(Selection(easiest=0.5), data, 0, 0)
    assert len(easy) == 10
    hardest_in = max(data.difficulty[i] for i in easy)
    assert all(data.difficulty[i] >= hardest_in for i in set(range(20)) - set(easy))
    assert select(Selection(min_quality=0.75), data, 0, 0) == [i for i in range(20) if data.quality[i] >= 0.75]
    assert select(Selection(min_quality=9.0), data, 0, 0) == [0]
    some = select(Selection(fraction=0.3), data, 0, 0)
    assert len(some) == 6
    assert some == select(Selection(fraction=0.3), data, 0, 0) != select(Selection(fraction=0.3), data, 0, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_whoever_makes_them(workers: int) -> None:
    task = TinyTask()
    data = TinyData(10, 1)
    maker = BatchMaker(data, task.collate, [Noise()], seed=5)
    batches = EpochBatches(maker, draw(range(10), 3, 5, 1), 1, 4)
    alone = [batches[i] for i in range(len(batches))]
    found = list(batches.iterate(2, workers, False))
    assert len(found) == len(batches) - 2 == 6
    for one, other in zip(alone[2:], found, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_variant_zero_is_the_sample_itself() -> None:
    task, data = TinyTask(), TinyData(4, 1)
    maker = BatchMaker(data, task.collate, [Noise()])
    plain = BatchMaker(data, task.collate)
    assert torch.equal(maker(0, tensor([2]), tensor([0]))["tokens"], plain(0, tensor([2]))["tokens"])
    rows, ones = tensor([0, 1, 2, 3]), tensor([1] * 4)
    assert not torch.equal(maker(0, rows, ones)["tokens"], plain(0, rows)["tokens"])


def test_reading_skips_what_is_skipped() -> None:
    seen: list[int] = []

    class Watched(TinyData):
        def __getitems__(self, indices: list[int]) -> list:
            seen.extend(indices)
            return super().__getitems__(indices)

    batches = EpochBatches(BatchMaker(Watched(1000, 1), TinyTask().collate), draw(range(1000), 1, 0, 0), 0, 10)
    next(batches.iterate(90, 0, False))
    assert len(seen) == 10


def test_tensor_data_answers_with_a_batch() -> None:
    data = TensorData({"x": torch.arange(10), "y": torch.arange(10) * 2})
    batch = BatchMaker(data, None)(0, tensor([3, 1]))
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {"x": [3, 1], "y": [6, 2], "sample_id": [3, 1]}
    with pytest.raises(ValueError, match="one length"):
        TensorData({"x": torch.zeros(2), "y": torch.zeros(3)})


class Shift:
    """Add a random amount to x, a sample or a batch at a time."""

    reads = frozenset({"x"})

    def __call__(self, sample: dict, generator: np.random.Generator) -> dict:
        return {**sample, "x": sample["x"] + generator.random()}

    def augment_batch(self, batch: dict, generators: list) -> dict:
        amounts = [0.0 if generator is None else generator.random() for generator in generators]
        return {**batch, "x": batch["x"] + tensor(amounts, dtype=torch.float64)}


def test_whole_batches_are_augmented_as_their_samples_would_be() -> None:
    values, samples, variants = torch.arange(5, dtype=torch.float64), tensor([3, 1, 4]), tensor([2, 0, 1])

    class Samples(list):
        def __getitems__(self, indices: list[int]) -> list:
            return [{"x": self[i]} for i in indices]

    whole = BatchMaker(TensorData({"x": values}), None, [Shift(), Shift()], seed=3)(1, samples, variants)
    one_by_one = BatchMaker(
        Samples(values), lambda found: {"x": torch.stack([item["x"] for item in found])}, [Shift(), Shift()], seed=3
    )(1, samples, variants)
    assert torch.equal(whole["x"], one_by_one["x"])
    assert whole["x"][1] == 1
    assert (whole["x"][[0, 2]] != values[[3, 4]]).all()
    assert torch.equal(values, torch.arange(5, dtype=torch.float64))


def test_an_augmenter_of_single_samples_is_refused_where_data_comes_in_batches() -> None:
    maker = BatchMaker(TensorData({"tokens": torch.zeros(4, 3)}), None, [Noise()])
    assert maker(0, tensor([1]), tensor([0]))["tokens"].shape == (1, 3)
    with pytest.raises(UsageError, match="augmenter Noise changes single samples"):
        maker(1, tensor([1]), tensor([1]))


def test_windows_keep_the_short_last_one() -> None:
    assert [len(window) for window in windows(iter([{}] * 7), 3)] == [3, 3, 1]


def test_evaluation_sees_every_sample_once() -> None:
    assert [rows.tolist() for rows in evaluation_batches(TinyData(7, 1), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [rows.tolist() for rows in evaluation_batches(TinyData(7, 1), 3, limit=4)] == [[0, 1, 2], [3]]
    assert evaluation_batches(TinyData(7, 1), 3, limit=0) == ()


@pytest.mark.parametrize("kind", [list, np.array])
def test_evaluation_batches_are_of_like_length_the_longest_first(kind) -> None:
    data = TinyData(7, 1)
    data.lengths = kind([3, 9, 3, 8, 1, 9, 2])
    assert [rows.tolist() for rows in evaluation_batches(data, 3)] == [[1, 5, 3], [0, 2, 6], [4]]
    assert [rows.tolist() for rows in evaluation_batches(data, 3, limit=4)] == [[1, 3, 0], [2]], "of the first ones"
    data.lengths = None
    assert [rows.tolist() for rows in evaluation_batches(data, 4)] == [[0, 1, 2, 3], [4, 5, 6]]

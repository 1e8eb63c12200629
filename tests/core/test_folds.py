"""Folds: sizes, groups, strata, content, and the datasets that they are."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainkit.content import content_hash, content_hashes
from trainkit.contracts import Splits
from trainkit.data import TensorData
from trainkit.errors import DataError, UsageError
from trainkit.folds.fold import Fold, assigned, cut, owners_of, read_fold
from trainkit.folds.subset import Subset
from trainkit.testing.tiny import TinyData, TinyTask


class Listed:
    """Hold samples of one number each.

    Args:
        values: of the samples.
        known: attributes of the dataset, as ids and groups.
    """

    def __init__(self, values: list[int], **known: Any) -> None:
        self.values = values
        for name, listed in known.items():
            setattr(self, name, listed)

    def __len__(self) -> int:
        return len(self.values)

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [{"id": f"sample {i}", "value": self.values[i]} for i in indices]


def values_of(dataset: Any) -> list[int]:
    return [sample["value"] for sample in dataset.__getitems__(list(range(len(dataset))))]


@pytest.mark.parametrize(
    ("count", "folds", "sizes"),
    [(53, 5, [11, 11, 11, 10, 10]), (10, 5, [2] * 5), (5, 5, [1] * 5), (7, 2, [4, 3])],
)
def test_sizes_are_even_and_the_first_ones_take_the_rest(count, folds, sizes):
    made = cut(Splits(Listed(list(range(count)))), folds, seed=3)
    assert made.sizes() == sizes
    parts = [made.of(Fold(number, folds)) for number in range(1, folds + 1)]
    assert [len(part.val or ()) for part in parts] == sizes
    assert sorted(value for part in parts for value in values_of(part.val)) == list(range(count))
    for part in parts:
        assert sorted(values_of(part.train) + values_of(part.val)) == list(range(count))


def test_training_and_validation_are_cut_together_and_the_test_is_left_to_all_samples():
    train, val, test = (Listed(list(range(first, first + 6))) for first in (0, 10, 20))
    splits = Splits(train, val, test, "numbers", "hash")
    made = cut(splits, 3, seed=0)
    assert [made.of(Fold(number, 3)).test for number in (1, 2, 3)] == [None] * 3
    whole = made.of(Fold(1, 1))
    assert (whole.val, whole.test, whole.fingerprint) == (None, test, "hash")
    assert values_of(whole.train) == [*range(6), *range(10, 16)]
    assert made.of(Fold(2, 3)).source == "numbers; fold 2/3"


def test_the_seed_decides_who_is_in_which_fold():
    splits = Splits(Listed(list(range(40))))
    one, again, other = (cut(splits, 4, seed).folds for seed in (1, 1, 2))
    assert one == again
    assert one != other


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=6, max_size=60), st.integers(2, 5), st.integers(0, 3))
def test_groups_never_part_and_no_fold_is_empty(groups, count, seed):
    if len(set(groups)) < count:
        with pytest.raises(DataError, match=f"{count} folds need {count} samples at least"):
            cut(Splits(Listed(list(range(len(groups))), groups=groups)), count, seed)
        return
    folds = cut(Splits(Listed(list(range(len(groups))), groups=groups)), count, seed).folds
    assert all(
        len({fold for fold, other in zip(folds, groups, strict=True) if other == group}) == 1 for group in groups
    )
    sizes = Counter(folds)
    assert set(sizes) == set(range(1, count + 1))
    # Dealt from the largest on: the largest fold is ahead of the smallest by no more than one group.
    assert max(sizes.values()) - min(sizes.values()) <= max(Counter(groups).values())


def test_each_fold_has_easy_and_hard_samples():
    difficulty = [float(value) for value in range(100)]
    folds = assigned(list(range(100)), difficulty, 5, seed=0)
    for number in range(1, 6):
        mine = [value for value, fold in zip(difficulty, folds, strict=True) if fold == number]
        # Of each tenth by difficulty, two samples.
        assert Counter(int(value) // 10 for value in mine) == dict.fromkeys(range(10), 2)


def test_samples_of_one_content_stay_together_and_are_told():
    train = Listed([1, 2, 3, 4, 5, 6, 7, 7], ids=list("abcdefgh"))
    made = cut(Splits(train, Listed([1, 8], ids=["v", "w"])), 3, seed=0)
    assert [sorted(names) for names in made.identical] == [["a", "v"], ["g", "h"]]
    folds = dict(zip(made.pool.ids or (), made.folds, strict=True))
    assert folds["a"] == folds["v"]
    assert folds["g"] == folds["h"]
    (warning,) = made.of(Fold(1, 3)).warnings
    assert warning == "4 samples have the content of another one; they are kept in one fold: a = v, g = h"


def test_samples_of_one_id_stay_together():
    assert owners_of([["a", "b", "a", None, None], [b"1", b"2", b"3", b"2", None]]) == [0, 1, 0, 1, 4]


def test_identical_samples_alone_cannot_be_cut():
    with pytest.raises(
        DataError, match="2 folds need 2 samples at least, and training and validation have 4 in 1 group"
    ):
        cut(Splits(Listed([5, 5, 5, 5])), 2, seed=0)


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/1", "2", "2/5/3", "all/5"])
def test_what_is_no_fold_is_refused(text):
    with pytest.raises(UsageError, match="there is no fold"):
        Fold.of(text)


def test_content_knows_values_shapes_and_types_and_leaves_names_out():
    array = np.arange(6)
    same = content_hash({"id": 1, "source": "x", "a": array, "b": {"c": [1, "x", None], "d": torch.ones(2)}})
    assert same == content_hash({"b": {"d": torch.ones(2), "c": (1, "x", None)}, "a": array.copy(), "id": 2})
    others = [
        {"a": array.reshape(2, 3), "b": {"c": [1, "x", None], "d": torch.ones(2)}},
        {"a": array, "b": {"c": [1.0, "x", None], "d": torch.ones(2)}},
        {"a": array, "b": {"c": [1, "x"], "d": torch.ones(2)}},
        {"a": array, "b": {"c": [1, "x", None], "d": torch.zeros(2)}},
    ]
    hashes = [same, *map(content_hash, others)]
    assert len(set(hashes)) == len(hashes)
    assert content_hash({"a": object()}) is None


def test_content_of_batches_is_that_of_their_rows():
    hashes = content_hashes(TensorData({"x": torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])}))
    assert hashes[0] == hashes[2] != hashes[1]


def test_a_subset_hands_samples_on_in_the_order_asked_for():
    subset = Subset.joined([Listed([1, 2, 3], quality=[0.1, 0.2, 0.3]), Listed([4, 5], quality=[0.4, 0.5])]).of(
        [4, 0, 2]
    )
    assert values_of(subset) == [5, 1, 3]
    assert [sample["value"] for sample in subset.__getitems__([2, 0])] == [3, 5]
    assert subset.quality == [0.5, 0.1, 0.3]
    assert subset.ids is subset.difficulty is subset.groups is None


def test_a_subset_joins_batches_row_by_row():
    parts = [TensorData({"x": torch.arange(4)}), TensorData({"x": torch.arange(10, 13)})]
    batch = Subset.joined(parts).__getitems__([5, 0, 6, 3])
    assert isinstance(batch, dict)
    assert batch["x"].tolist() == [11, 0, 12, 3]


def test_a_task_that_cuts_itself_loses_only_its_test():
    class Cutting(TinyTask):
        def fold_options(self, fold: str) -> dict[str, Any]:
            return {"samples": 9}

    splits = Splits(TinyData(6, 1), TinyData(2, 2), TinyData(2, 3))
    kept = read_fold(splits, "1/2", Cutting(), 0)
    assert (kept.train, kept.val, kept.test) == (splits.train, splits.val, None)
    assert read_fold(splits, "all", Cutting(), 0) is splits
    assert read_fold(splits, None, TinyTask(), 0) is splits

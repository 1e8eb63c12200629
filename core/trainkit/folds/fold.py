"""Folds of cross-validation: which samples a fold validates on; those that belong together never part.

Sizes are as even as samples that belong together allow: n // count, and one more for the first n mod count folds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from trainkit.config import Config, Layer, layer_of
from trainkit.content import content_hashes
from trainkit.contracts import Dataset, Folds, Splits
from trainkit.errors import DataError, UsageError, listed
from trainkit.randomness import Purpose, mixed
from trainkit.tasks import lacking

from .subset import Subset

ALL = "all"
MOST_STRATA = 10
SHOWN = 3


def fold_numbers(text: str) -> tuple[int, int] | None:
    """Return number and count of the fold that a text as '2/5' names; None if it names none, of two at least."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    return (number, count) if count >= 2 and 1 <= number <= count else None


@dataclass(frozen=True)
class Fold:
    """Name a fold of several, or all samples.

    Args:
        number: from 1.
        count: of all folds; 1 stands for all samples, none of which is validated on.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return ALL if self.count == 1 else f"{self.number}/{self.count}"

    @classmethod
    def of(cls, text: str) -> Fold:
        """Return what a text as '2/5', or 'all', names; raise UsageError if it names no fold."""
        if text == ALL:
            return cls(1, 1)
        if (numbers := fold_numbers(text)) is None:
            raise UsageError(
                f"there is no fold {text!r}",
                where="fold",
                why="it is the number of a fold and how many there are, two at least; 'all' trains on all samples",
                do="as 2/5: the second of five",
            )
        return cls(*numbers)


@dataclass(frozen=True)
class Cut:
    """Hold training and validation samples, cut into folds; the test stays what it is.

    Args:
        splits: as they were read.
        pool: training and validation samples together.
        folds: of each of them the fold that validates on it, from 1.
        identical: names of samples with the same content, each group in one fold.
    """

    splits: Splits
    pool: Subset
    folds: Sequence[int]
    identical: Sequence[Sequence[str]] = ()

    def sizes(self) -> list[int]:
        """Return how many samples each fold validates on."""
        return [self.folds.count(number) for number in range(1, max(self.folds) + 1)]

    def of(self, fold: Fold) -> Splits:
        """Return the splits of a fold; the test, which is looked at once, belongs to all samples alone."""
        source = f"{self.splits.source}; fold {fold}"
        warnings = [*self.splits.warnings, *identity_warning(self.identical)]
        if fold.count == 1:
            return replace(self.splits, train=self.pool, val=None, source=source, warnings=warnings)
        train = self.pool.of([i for i, number in enumerate(self.folds) if number != fold.number])
        val = self.pool.of([i for i, number in enumerate(self.folds) if number == fold.number])
        return replace(self.splits, train=train, val=val, test=None, source=source, warnings=warnings)


def read_fold(splits: Splits, fold: str | None, task: object, seed: int) -> Splits:
    """Return the splits that a run on a fold has; those of a task that cuts itself lose only their test.

    Args:
        splits: as the task reads them.
        fold: as '2/5', 'all', or None for no fold.
        task: what read them.
        seed: decides who is in which fold.
    """
    if fold is None:
        return splits
    asked = Fold.of(fold)
    if cuts_itself(task):
        return splits if asked.count == 1 else replace(splits, test=None)
    return cut(splits, asked.count, seed).of(asked)


def cuts_itself(task: object) -> bool:
    """Return whether a task has its own way to cut data into folds."""
    return not lacking(task, Folds)


def fold_layer(task: Any, fold: Fold, origin: str) -> Layer:
    """Return the settings under which a run has this fold."""
    options: Mapping[str, Any] = task.fold_options(str(fold)) if cuts_itself(task) else {}
    own = {f"task.{name}": value for name, value in options.items()}
    return layer_of({"fold": str(fold), "folds": None, **own}, origin)


def layer_of_fold(task: Any, config: Config, user: Sequence[Layer]) -> Layer:
    """Return the settings of a run on one fold alone; raise UsageError if the user asked for all folds as well."""
    fold = Fold.of(config["fold"])
    if any(layer["folds"].value is not None for layer in user if "folds" in layer):
        raise UsageError(
            f"folds = {config['folds']} and fold = {fold} contradict each other",
            where=f"{config.origin('folds')}; {config.origin('fold')}",
            why="one asks for a run for each fold, the other for a run on a fold alone",
            do="leave one of them out",
        )
    return fold_layer(task, fold, f"fold {fold}")


def cut(splits: Splits, count: int, seed: int) -> Cut:
    """Return training and validation samples cut into folds: shuffled, stratified by difficulty, grouped.

    Samples of a group, of one id or of the same content are in one fold.

    Raises:
        DataError: there are fewer groups than folds.
    """
    pool = Subset.joined([splits.train] if splits.val is None else [splits.train, splits.val])
    hashes = content_hashes(pool) if count > 1 else [None] * len(pool)
    owners = owners_of([_keys(pool), hashes])
    if len(set(owners)) < count:
        together = "" if len(set(owners)) == len(pool) else f" in {len(set(owners))} groups that must not part"
        raise DataError(
            f"{count} folds need {count} samples at least, and training and validation have {len(pool)}{together}",
            where=splits.source,
            do="give fewer folds, as --folds 2, or more data",
        )
    alike: dict[bytes, list[str]] = {}
    for index, found in enumerate(hashes):
        if found is not None:
            alike.setdefault(found, []).append(pool.name(index))
    folds = assigned(owners, pool.difficulty, count, seed)
    return Cut(splits, pool, folds, [names for names in alike.values() if len(names) > 1])


def identity_warning(identical: Sequence[Sequence[str]]) -> list[str]:
    """Return what to say of samples with the same content; nothing where there are none."""
    if not identical:
        return []
    shown = listed((" = ".join(names[:SHOWN]) + " ..." * (len(names) > SHOWN) for names in identical), SHOWN)
    samples = sum(map(len, identical))
    return [f"{samples} samples have the content of another one; they are kept in one fold: {shown}"]


def _keys(pool: Subset) -> list[Any]:
    """Return what tells which samples belong together: their group, else their id; None where nothing tells."""
    if pool.groups is not None:
        return list(pool.groups)
    return list(pool.ids) if pool.ids is not None else [None] * len(pool)


def owners_of(keys: Sequence[Sequence[Any]]) -> list[int]:
    """Return for each sample the first one that it belongs together with.

    Args:
        keys: lists with one key for each sample; samples that share a key of one list belong together, those with None
            to none.
    """
    count = len(keys[0])
    owners = list(range(count))

    def root(index: int) -> int:
        while owners[index] != index:
            owners[index] = owners[owners[index]]
            index = owners[index]
        return index

    for column in keys:
        first: dict[Any, int] = {}
        for index, key in enumerate(column):
            if key is not None:
                one, other = sorted((root(first.setdefault(key, index)), root(index)))
                owners[other] = one
    return [root(index) for index in range(count)]


def assigned(owners: Sequence[int], difficulty: Sequence[float] | None, count: int, seed: int) -> list[int]:
    """Return the fold of each sample, from 1.

    Groups are shuffled, then dealt from the largest on, and of equal size stratum by stratum, each to the smallest
    fold. Strata are up to ten shares of the groups by mean difficulty, none with fewer groups than folds.

    Args:
        owners: of each sample the number of its group.
        difficulty: of each sample, or None.
        count: of folds.
        seed: decides about the order.
    """
    members: dict[int, list[int]] = {}
    for index, owner in enumerate(owners):
        members.setdefault(owner, []).append(index)
    groups = list(members.values())
    generator = torch.Generator().manual_seed(mixed(seed, Purpose.FOLD, count))
    groups = [groups[place] for place in torch.randperm(len(groups), generator=generator).tolist()]
    strata = _strata(groups, difficulty, count)
    order = sorted(range(len(groups)), key=lambda place: (-len(groups[place]), strata[place]))
    sizes, folds = [0] * count, [0] * len(owners)
    for place in order:
        smallest = sizes.index(min(sizes))
        sizes[smallest] += len(groups[place])
        for index in groups[place]:
            folds[index] = smallest + 1
    return folds


def _strata(groups: Sequence[Sequence[int]], difficulty: Sequence[float] | None, count: int) -> list[int]:
    if difficulty is None:
        return [0] * len(groups)
    means = [sum(difficulty[index] for index in group) / len(group) for group in groups]
    number = max(1, min(MOST_STRATA, len(groups) // count))
    strata = [0] * len(groups)
    for rank, place in enumerate(sorted(range(len(groups)), key=lambda place: means[place])):
        strata[place] = rank * number // len(groups)
    return strata


def lengths(splits: Splits) -> dict[str, int]:
    """Return the number of samples of each split."""
    return {name: len(dataset) for name, dataset in splits.items()}


def names_of(dataset: Dataset) -> list[str]:
    """Return the name of each sample of a dataset."""
    ids: Sequence[Any] | None = getattr(dataset, "ids", None)
    return [str(ids[index]) if ids is not None else str(index) for index in range(len(dataset))]

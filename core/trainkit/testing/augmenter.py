"""Checks of augmenters: the generator decides alone, the input stays whole, the task still understands the sample."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from trainkit.config import DEFAULTS
from trainkit.contracts import Sample
from trainkit.randomness import variant_generator
from trainkit.registry import Registry

from .component import ComponentConformance, NotChecked, same

DRAWS = 20


class AugmenterConformance(ComponentConformance):
    """Check an augmenter on samples of a task.

    Attributes:
        task: the task whose embedded sample it is checked on.
    """

    kind = "augmenter"
    task: ClassVar[str] = DEFAULTS["task.use"]

    def built_task(self) -> Any:
        """Return the task, with its embedded sample read."""
        registry = Registry()
        if self.task not in registry.names("task"):
            raise NotChecked(f"task {self.task} is not installed: name another one in `task`, or give samples()")
        return registry.load("task", self.task).build({})

    def samples(self) -> Sequence[Sample]:
        """Return a few samples."""
        train = self.built_task().read(None, 0).train
        items = train.__getitems__(list(range(min(4, len(train)))))
        reads = set(self.build().reads)
        if missing := reads - set(items[0]):
            raise NotChecked(f"samples of task {self.task} have no {', '.join(sorted(missing))}: name another `task`")
        return list(items)

    def test_says_what_it_reads(self) -> None:
        """`reads` is a set of names, so that a task without them is refused before training."""
        reads = self.build().reads
        assert isinstance(reads, frozenset)
        assert all(isinstance(name, str) for name in reads)

    def test_generator_decides_alone(self) -> None:
        """The same generator gives the same sample to the bit, from a fresh augmenter too."""
        for number, sample in enumerate(self.samples()):
            one = self.build()(sample, variant_generator(0, 1, number, 2))
            assert same(one, self.build()(sample, variant_generator(0, 1, number, 2)))

    def test_does_something(self) -> None:
        """Over twenty draws it changes a sample, and in more than one way."""
        augment, samples = self.build(), self.samples()
        changed: list[Sample] = []
        for draw in range(DRAWS):
            sample = samples[draw % len(samples)]
            result = augment(sample, variant_generator(0, 0, 0, draw))
            if not same(result, sample):
                changed.append(result)
        assert len(changed) > 1, f"{DRAWS} draws changed the sample {len(changed)} times"
        assert not all(same(changed[0], other) for other in changed[1:])

    def test_input_stays_whole(self) -> None:
        """The sample that goes in is not changed, however deep."""
        augment = self.build()
        for sample in self.samples():
            before = copy.deepcopy(dict(sample))
            for draw in range(DRAWS):
                augment(sample, variant_generator(0, 0, 0, draw))
            assert same(before, dict(sample))

    def test_keeps_the_keys(self) -> None:
        """The answer has every key of the sample."""
        for sample in self.samples():
            assert set(self.build()(sample, variant_generator(0, 0, 0, 1))) >= set(sample)

    def test_leaves_global_randomness_alone(self) -> None:
        """The generators of Python, NumPy and PyTorch are where they were."""
        samples, augment = self.samples(), self.build()
        before = _global_randomness()
        for draw in range(DRAWS):
            augment(samples[0], variant_generator(0, 0, 0, draw))
        assert same(before, _global_randomness())

    def test_task_still_understands_it(self) -> None:
        """The task makes a batch of augmented samples, with the names of a batch of the samples as they are."""
        task = self.built_task()
        splits = task.read(None, 0)
        task.fit(splits.train)
        samples, augment = self.samples(), self.build()
        for draw in range(DRAWS):
            augmented = [augment(sample, variant_generator(0, 0, n, draw)) for n, sample in enumerate(samples)]
            assert set(task.collate(augmented)) == set(task.collate(samples))


def _global_randomness() -> list[Any]:
    numpy = np.random.get_state()  # noqa: NPY002 - the global generator is what must not move
    return [list(random.getstate()[1]), list(numpy), torch.get_rng_state()]

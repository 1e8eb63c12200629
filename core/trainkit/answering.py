"""Answers of a model: samples in, answers out, in the state in which the model is evaluated, leaving no trace in it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from .conformity import asked
from .contracts import SAMPLE_ID, Answer, Answers, Dataset, Sample
from .errors import PluginError
from .evaluation import evaluating
from .randomness import Purpose, seed_torch

if TYPE_CHECKING:
    from .contracts import Streams, Task
    from .live import Run


def answers_of(
    run: Run, task: Task, dataset: Dataset, rows: Sequence[int], batch_size: int, seed: int
) -> Iterator[Answer]:
    """Yield a model's answers to samples of a dataset, batch by batch; `evaluated` has to be in force around it.

    Args:
        run: what holds the model.
        task: what answers; it has the power trainkit.contracts.Answers.
        dataset: where the samples are.
        rows: which of them, in this order.
        batch_size: how many are answered at once.
        seed: decides, with the number of the batch, about whatever is drawn.
    """
    for number in range(0, len(rows), batch_size):
        indices = list(rows[number : number + batch_size])
        samples, placed = _taken(run, task, dataset, indices)
        seed_torch(seed, Purpose.EVALUATION, number // batch_size)
        found = cast("Answers", task).answers(run.model, placed, samples)
        if len(found) != len(samples):
            raise PluginError(
                f"the task gives {len(found)} answers to {len(samples)} samples", do="correct its `answers`"
            )
        yield from found


def streamed_answer(run: Run, task: Task, dataset: Dataset, seed: int) -> Generator[str, None, Answer]:
    """Yield a model's answer to the only sample of a dataset piece by piece, and return it: see `answers_of`.

    Args:
        run: what holds the model.
        task: what answers; it has the power trainkit.contracts.Streams.
        dataset: one sample.
        seed: decides about whatever is drawn.
    """
    samples, placed = _taken(run, task, dataset, [0])
    seed_torch(seed, Purpose.EVALUATION, 0)
    answer: object = yield from cast("Streams", task).stream(run.model, placed, samples)
    if not isinstance(answer, Answer):
        why = f"it gives {type(answer).__name__} after its last piece"
        raise PluginError("the task's `stream` returns no Answer", why=why, do="let it return what `answers` gives")
    return answer


def _taken(run: Run, task: Task, dataset: Dataset, indices: list[int]) -> tuple[list[Sample], Mapping[str, Any]]:
    """Return samples of a dataset, and their batch on the run's device."""
    with asked("the task", "read its inputs"):
        items = dataset.__getitems__(indices)
        samples = apart(items, len(indices)) if isinstance(items, Mapping) else list(items)
        batch = items if isinstance(items, Mapping) else task.collate(samples)
    return samples, run.engine.place({**batch, SAMPLE_ID: torch.tensor(indices)})


@contextlib.contextmanager
def evaluated(run: Run, what: str) -> Iterator[None]:
    """Put a run's model in the state in which it is evaluated, averaged weights swapped in, and back as it was.

    Modes and random states are afterwards what they were; the time counts as that of the evaluation before it.

    Args:
        run: a composed run.
        what: what listeners hear in place of a split.
    """
    started = time.perf_counter()
    with random_states_kept(), _announced(run, what), evaluating(run):
        yield
    run.forecast.evaluated(time.perf_counter() - started, is_new=False)


@contextlib.contextmanager
def _announced(run: Run, what: str) -> Iterator[None]:
    for before in run.events.before_evaluation:
        before(run, what)
    try:
        yield
    finally:
        for after in run.events.after_evaluation:
            after(run, what, {})


@contextlib.contextmanager
def random_states_kept() -> Iterator[None]:
    """Put PyTorch's random states back as they were."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        yield


def sample_of(batch: Mapping[str, Any], index: int) -> Sample:
    """Return a sample of a batch of tensors; what is no tensor is the same for all samples."""
    return {name: values[index] if isinstance(values, torch.Tensor) else values for name, values in batch.items()}


def apart(batch: Mapping[str, Any], count: int) -> list[Sample]:
    """Return the samples of a batch of tensors."""
    return [sample_of(batch, i) for i in range(count)]


def chosen(dataset: Dataset, count: int, most_groups: int) -> tuple[list[int], int]:
    """Return which samples of a dataset to look at, always the same, and how many groups it has.

    They are evenly spread; where samples belong to groups, of each group there is one at least, up to a number of
    groups, which are evenly spread, too.

    Args:
        dataset: its optional `groups` tell which samples belong together.
        count: how many samples.
        most_groups: how many groups are looked at; they may make it more samples.
    """
    groups = getattr(dataset, "groups", None)
    if groups is None:
        return spread(len(dataset), count), 0
    numbers, counts = np.unique(np.asarray(groups), return_counts=True)
    if len(numbers) > most_groups and 2 * len(numbers) > len(dataset):
        # Groups that hardly hold more than a sample each, as near-duplicates, are nothing to be seen apart.
        return spread(len(dataset), count), 0
    members = np.split(np.argsort(groups, kind="stable"), counts.cumsum()[:-1])
    shown = [members[place] for place in spread(len(members), most_groups)]
    count = max(count, len(shown))
    shares = [count // len(shown) + (place < count % len(shown)) for place in range(len(shown))]
    # The middle of a stretch: of a single sample of a group it is the middle of all.
    return [
        int(indices[(2 * number + 1) * len(indices) // (2 * share)])
        for indices, wanted in zip(shown, shares, strict=True)
        for share in [min(wanted, len(indices))]
        for number in range(share)
    ], len(numbers)


def spread(length: int, count: int) -> list[int]:
    """Return up to `count` different indices below a length, evenly spread and always the same."""
    count = min(length, count)
    return [i * length // count for i in range(count)]

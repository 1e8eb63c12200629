"""Evaluation: a split through the model once, losses and metrics as sums."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch

from .contracts import Dataset, Measures
from .data import BatchMaker, evaluation_batches
from .errors import RunFailed, printable
from .randomness import Purpose, seed_torch
from .ranks.agreement import agree
from .ranks.merging import merge_metrics, merges
from .ranks.sharding import gathered
from .ranks.sharing import share_buffers
from .ranks.world import ALONE
from .record import LossPairs
from .tasks import lacking

if TYPE_CHECKING:
    from .live import BoundMetric, Run

SPLIT_CODES = {"train": 0, "val": 1, "test": 2}


class Interrupted(Exception):
    """A signal arrived during an evaluation; the evaluation is done again when the run resumes."""


def evaluate(run: Run, split: str, dataset: Dataset, limit: int | None = None) -> dict[str, float]:
    """Return the losses and metrics of a split by tag, and announce them.

    Args:
        run: a composed run; its model is as it was afterwards, in training mode.
        split: the split's name, the first part of every tag.
        dataset: what is evaluated.
        limit: look at the first samples only.
    """
    started = time.perf_counter()
    share_buffers(run)
    for before in run.events.before_evaluation:
        before(run, split)
    results: dict[str, float] = {}
    try:
        with evaluating(run):
            results = results_of(run, split, dataset, limit)
    finally:
        samples = len(dataset) if limit is None else min(limit, len(dataset))
        run.forecast.evaluated(time.perf_counter() - started, samples)
        for after in run.events.after_evaluation:
            after(run, split, results)
    return results


@contextlib.contextmanager
def evaluating(run: Run) -> Iterator[None]:
    """Put model, loss and optimizer in evaluation mode, without gradients, and back."""
    with evaluated_weights(run), evaluation_mode(run):
        yield


@contextlib.contextmanager
def evaluation_mode(run: Run) -> Iterator[None]:
    """Put model and loss in evaluation mode, without gradients, and back; the weights stay those in place."""
    run.model.eval()
    run.loss.eval()
    try:
        with torch.no_grad(), gathered(run) if run.is_sharded else contextlib.nullcontext():
            yield
    finally:
        run.model.train()
        run.loss.train()


@contextlib.contextmanager
def evaluated_weights(run: Run) -> Iterator[None]:
    """Put the weights in place that are evaluated and saved, and those that are trained back."""
    switch_weights(run, training=False)
    try:
        yield
    finally:
        switch_weights(run, training=True)


def switch_weights(run: Run, *, training: bool) -> None:
    """Put the weights in place that are trained, or those that are evaluated and saved, if they are not there already.

    They differ where the optimizer averages weights, as schedule-free ones do, or a component swaps them.
    """
    switch: Callable[[], Any] | None = getattr(run.optimizer, "train" if training else "eval", None)
    if switch is not None:
        switch()
    # What was swapped in last goes out first.
    for swap in reversed(run.events.swap_weights_out) if training else run.events.swap_weights_in:
        swap(run)


def results_of(run: Run, split: str, dataset: Dataset, limit: int | None) -> dict[str, float]:
    """Return the losses and metrics of a split by tag; nobody hears of it, and modes are the caller's business."""
    losses = LossPairs()
    look_at(run, split, dataset, limit, losses)
    run.inactive.note(split, losses.inactive, losses.batches)
    if not run.world.is_alone:
        return results_of_ranks(run, split, losses)
    return losses.means(split) | metric_rows(split, run.metrics)


def results_of_ranks(run: Run, split: str, losses: LossPairs) -> dict[str, float]:
    """Return the results of a split of which each rank saw a part: those of all parts, the same on each rank."""
    world = run.world
    merged = merges(run.metrics)
    if merged:
        losses = losses.pooled(world)
        merge_metrics(world, [bound.metric for bound in run.metrics])
    # Metrics that are merged have the sums on rank 0 alone.
    own = losses.means(split) | metric_rows(split, run.metrics) if world.is_first or not merged else {}
    results: dict[str, float] = world.firsts(own)
    return results


def look_at(run: Run, split: str, dataset: Dataset, limit: int | None, losses: LossPairs) -> None:
    """Put a split through the model: fill the losses and the run's metrics, from anew."""
    for bound in run.metrics:
        bound.metric.reset()
    dataset, limit = measured(run, dataset, limit)
    seed_torch(run.settings.seed, Purpose.EVALUATION, run.moment.step, SPLIT_CODES.get(split, 3))
    for batch in batches(run, dataset, limit) if run.world.is_alone else share_of_batches(run, split, dataset, limit):
        run.check_signal_in_evaluation()
        outputs, loss = run.forward(batch)
        losses.add(loss)
        values = {**batch, **outputs}
        if run.predicts:
            values |= run.task.predict(run.model, batch, outputs)
        for bound in run.metrics:
            bound.update(values)


def measured(run: Run, dataset: Dataset, limit: int | None) -> tuple[Dataset, int | None]:
    """Return what is measured of a split, or of its first samples, and how much of that: all of it for None."""
    if lacking(run.task, Measures):
        return dataset, limit
    count = len(dataset) if limit is None else min(limit, len(dataset))
    return cast("Measures", run.task).measured(dataset, count), None


def share_of_batches(run: Run, split: str, dataset: Dataset, limit: int | None) -> Iterator[Mapping[str, Any]]:
    """Yield this rank's part of the evaluation batches, whole ones in turn, or all of them if sums cannot be merged.

    Ranks agree before each batch. What a batch draws at random follows from its number, whichever rank has it.
    """
    maker = BatchMaker(dataset, run.task.collate)
    size = run.settings.evaluate.batch_size or run.settings.loop.batch_size
    parts = evaluation_batches(dataset, size, limit)
    world = run.world if merges(run.metrics) else ALONE
    for begin in range(0, len(parts), world.size):
        agree(run)
        run.check_signal_in_evaluation()
        number = begin + world.rank
        if number < len(parts):
            seed_torch(run.settings.seed, Purpose.EVALUATION, run.moment.step, SPLIT_CODES.get(split, 3), number)
            yield run.engine.place(maker(0, parts[number]))


def batches(run: Run, dataset: Dataset, limit: int | None = None) -> Iterator[Mapping[str, Any]]:
    """Yield the evaluation batches of a dataset on the run's device: every sample once, like lengths together."""
    maker = BatchMaker(dataset, run.task.collate)
    size = run.settings.evaluate.batch_size or run.settings.loop.batch_size
    for indices in evaluation_batches(dataset, size, limit):
        yield run.engine.place(maker(0, indices))


def evaluate_baseline(
    run: Run, split: str, dataset: Dataset, predict: Callable[..., Mapping[str, Any]]
) -> dict[str, float]:
    """Return the metrics of a trivial predictor on a split; metrics that read what it does not give are left out."""
    metrics = run.metrics
    for bound in metrics:
        bound.metric.reset()
    able = list(metrics)
    dataset, limit = measured(run, dataset, None)
    with torch.no_grad():
        for batch in batches(run, dataset, limit):
            values = {**batch, **predict(batch)}
            able = [bound for bound in able if not bound.update.missing(values)]
            for bound in able:
                bound.update(values)
    return metric_rows(split, able)


def metric_rows(split: str, metrics: list[BoundMetric]) -> dict[str, float]:
    """Return the metrics' values by tag: the first of several values under the metric's own name."""
    rows: dict[str, float] = {}
    for bound in metrics:
        value = bound.metric.compute()
        named = value if isinstance(value, Mapping) else {"": value}
        for place, (part, number) in enumerate(named.items()):
            rows[f"{split}/{bound.name}" + (f"/{part}" if place else "")] = _number(bound.name, number)
    return rows


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise RunFailed(
            f"metric {name} computes {printable(repr(value))[:200]}",
            why="a number, or a mapping of numbers, is understood",
        ) from None

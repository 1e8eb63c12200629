"""What is not known of a run's time before it happens: an evaluation, and the steps of later stages. Nothing stays."""

from __future__ import annotations

import contextlib
import fnmatch
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from trainkit.answering import random_states_kept
from trainkit.data import EpochBatches, alike, draw, select
from trainkit.evaluation import Interrupted, evaluation_mode, look_at, metric_rows
from trainkit.record import LossPairs

if TYPE_CHECKING:
    from trainkit.live import Run
    from trainkit.stages import PlannedStage

    from .ahead import Ahead

PROBES = 3
QUICK = 0.5
MOST_SHARE = 0.02


@runtime_checkable
class Rehearses(Protocol):
    """Be a component that is busy at each evaluation, besides the evaluation itself."""

    def rehearse(self, run: Run) -> None:
        """Do once what an evaluation makes it do, and leave no trace: the time that it takes is measured."""
        ...


def estimate(run: Run, left: Ahead) -> None:
    """Let a run's forecast expect what was tried out here; weights, modes, gradients and random states stay.

    Where the evaluation of a batch alone takes more than a small share of the steps that are left, nothing is rehearsed
    on top: the forecast is not worth that.
    """
    started = time.perf_counter()
    worth = MOST_SHARE * sum(left.steps) * (run.forecast.per_step or 0.0)
    # A signal ends it, and the run at its next step.
    with contextlib.suppress(Interrupted):
        relative = relative_costs(run)
        if run.forecast.evaluations or run.splits.val is None:
            run.forecast.expect(relative)
        else:
            began = time.perf_counter()
            sample = sample_seconds(run)
            is_cheap = time.perf_counter() - began < worth
            run.forecast.expect(relative, sample, rehearsal_seconds(run) if is_cheap else 0.0)
    run.forecast.is_estimated = True
    run.forecast.paused(time.perf_counter() - started)


def sample_seconds(run: Run) -> float | None:
    """Return the seconds that a sample takes in an evaluation, predictions and metrics included; None for no data."""
    dataset = run.splits.val or (run.splits.test or run.splits.train if run.settings.evaluate.final else None)
    if dataset is None:
        return None
    size = min(len(dataset), run.settings.evaluate.batch_size or run.settings.loop.batch_size)

    def seconds() -> float:
        started = time.perf_counter()
        look_at(run, "val", dataset, size, LossPairs())
        metric_rows("val", run.metrics)
        run.engine.synchronize()
        return time.perf_counter() - started

    with random_states_kept(), evaluation_mode(run):
        first = seconds()
        # The first of all is slower than those after it, which matters where it is short.
        return (first if first > QUICK else min(first, seconds())) / size


def rehearsal_seconds(run: Run) -> float:
    """Return the seconds that components take at an evaluation, as far as they can rehearse it."""
    started = time.perf_counter()
    for component in run.components.values():
        if isinstance(component, Rehearses):
            component.rehearse(run)
    return time.perf_counter() - started


def relative_costs(run: Run) -> list[float]:
    """Return what a step of each stage takes, in seconds; all 1 where the stages take the same samples and weights.

    Forward and backward passes of a few batches are tried out, and the gradients thrown away.
    """
    kinds = {(planned.stage.selection, planned.stage.trainable) for planned in run.stages}
    if len(kinds) == 1 or run.settings.loop.compile:
        return [1.0] * len(run.stages)
    found: dict[Any, float] = {}
    with random_states_kept(), _gradients_apart(run):
        for planned in run.stages:
            kind = (planned.stage.selection, planned.stage.trainable)
            if kind not in found:
                found[kind] = _step_seconds(run, planned)
    return [found[planned.stage.selection, planned.stage.trainable] for planned in run.stages]


def _step_seconds(run: Run, planned: PlannedStage) -> float:
    for name, parameter in run.learnable.items():
        parameter.requires_grad_(any(fnmatch.fnmatchcase(name, pattern) for pattern in planned.stage.trainable))
    loop, seed = run.settings.loop, run.settings.seed
    indices = select(planned.stage.selection, run.splits.train, seed, planned.first_epoch)
    draws = draw(indices, loop.variants, seed, planned.first_epoch)
    draws = alike(draws, run.splits.train, loop.batch_size, loop.buckets, seed, planned.first_epoch)
    batches = EpochBatches(run.batch_maker(), draws, planned.first_epoch, loop.batch_size)
    seconds: list[float] = []
    stream = iter(islice(batches.iterate(0, 0, False), PROBES))
    while True:
        run.check_signal_in_evaluation()
        started = time.perf_counter()
        batch = next(stream, None)
        if batch is None:
            return statistics.fmean(seconds)
        _, loss = run.forward(run.engine.place(batch))
        if loss.sum.requires_grad:
            loss.sum.backward()
        run.engine.synchronize()
        seconds.append(time.perf_counter() - started)


@contextlib.contextmanager
def _gradients_apart(run: Run) -> Iterator[None]:
    """Leave no gradient and no trace in buffers; what learns is afterwards what did."""
    learning = {name: parameter.requires_grad for name, parameter in run.learnable.items()}
    buffers = [(buffer, buffer.clone()) for buffer in run.model.buffers()]
    # The model trains, as recurrent layers on a GPU have a backward pass in training alone; the loss must not learn.
    run.loss.eval()
    try:
        yield
    finally:
        run.loss.train()
        for buffer, before in buffers:
            buffer.copy_(before)
        for name, parameter in run.learnable.items():
            parameter.grad = None
            parameter.requires_grad_(learning[name])

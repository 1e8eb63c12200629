"""What is not known of a run's time before it happens: an evaluation, and the steps of later stages. Nothing stays."""

from __future__ import annotations

import contextlib
import fnmatch
import statistics
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch

from trainkit.answering import random_states_kept
from trainkit.contracts import AsTrained
from trainkit.data import EpochBatches, alike, draw, select
from trainkit.evaluation import Interrupted, evaluation_mode, look_at, metric_rows
from trainkit.record import LossPairs
from trainkit.tasks import lacking

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from trainkit.live import Run
    from trainkit.stages import PlannedStage

    from .ahead import Ahead

FEWEST_PROBES, MOST_PROBES, PROBED_SHARE = 3, 9, 0.05
QUICK = 0.5
MOST_SHARE = 0.05


@runtime_checkable
class Rehearses(Protocol):
    """Be a component that is busy at each evaluation, besides the evaluation itself."""

    def rehearse(self, run: Run) -> None:
        """Do once what an evaluation makes it do, and leave no trace: the time that it takes is measured."""
        ...


def estimate(run: Run, left: Ahead, steps: float) -> None:
    """Let a run's forecast expect what was tried out here; weights, modes, gradients and random states stay.

    Where the evaluation of a batch alone takes more than a small share of the steps that are left, nothing is rehearsed
    on top: the forecast is not worth that.

    Args:
        run: which has measured its first steps.
        left: what is left of it.
        steps: that are left of it and of what it is a part of.
    """
    started = time.perf_counter()
    worth = MOST_SHARE * steps * (run.forecast.per_step or 0.0)
    # A signal ends it, and the run at its next step.
    with contextlib.suppress(Interrupted):
        relative = relative_costs(run, steps)
        if run.forecast.evaluations or run.splits.val is None:
            run.forecast.expect(relative)
        else:
            began = time.perf_counter()
            sample = sample_seconds(run)
            is_cheap = time.perf_counter() - began < worth
            extra = rehearsal_seconds(run) if is_cheap else 0.0
            run.forecast.expect(relative, sample, extra, is_as_trained=not lacking(run.task, AsTrained))
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

    with random_states_kept(), evaluation_mode(run), as_trained(run.task):
        first = seconds()
        # The first of all is slower than those after it, which matters where it is short.
        return (first if first > QUICK else min(first, seconds())) / size


def rehearsal_seconds(run: Run) -> float:
    """Return the seconds that components take at an evaluation, as far as they can rehearse it."""
    started = time.perf_counter()
    with as_trained(run.task):
        for component in run.components.values():
            if isinstance(component, Rehearses):
                component.rehearse(run)
    return time.perf_counter() - started


def as_trained(task: Any) -> AbstractContextManager[None]:
    """Return what lets a task generate as much as it will when it has learned, where it can."""
    return contextlib.nullcontext() if lacking(task, AsTrained) else task.as_trained()


def relative_costs(run: Run, steps: float) -> list[float]:
    """Return what a step of each stage takes, in seconds; all 1 where the stages take the same samples and weights.

    A few batches of each are tried out, in turn, so that what comes and goes on a machine meets all stages alike.
    Passes are forward only where the stages differ in samples alone; gradients are thrown away.

    Args:
        run: a composed run.
        steps: that are left of it: a small share of their time is worth being spent.
    """
    kinds = {(planned.stage.selection, planned.stage.trainable): planned for planned in run.stages}
    if len(kinds) == 1 or run.settings.loop.compile:
        return [1.0] * len(run.stages)
    is_backward = len({trainable for _, trainable in kinds}) > 1
    probes = {kind: _Probe(run, planned, is_backward) for kind, planned in kinds.items()}
    rounds = min(MOST_PROBES, max(FEWEST_PROBES, round(PROBED_SHARE * steps / len(kinds))))
    with random_states_kept(), _gradients_apart(run):
        for _ in range(1 + rounds):
            for probe in probes.values():
                probe.measure()
    return [probes[planned.stage.selection, planned.stage.trainable].typical() for planned in run.stages]


class _Probe:
    """Try out steps of a stage, one batch of its first epoch after the other.

    Args:
        run: a composed run.
        planned: the stage.
        is_backward: whether it takes the backward pass to tell stages apart.
    """

    def __init__(self, run: Run, planned: PlannedStage, is_backward: bool) -> None:
        loop, seed, epoch = run.settings.loop, run.settings.seed, planned.first_epoch
        indices = select(planned.stage.selection, run.splits.train, seed, epoch)
        draws = draw(indices, loop.variants, seed, epoch)
        draws = alike(draws, run.splits.train, loop.batch_size, loop.buckets, seed, epoch)
        self.run, self.trainable, self.is_backward = run, planned.stage.trainable, is_backward
        self.batches = EpochBatches(run.batch_maker(), draws, epoch, loop.batch_size)
        self.seconds: list[float] = []

    def measure(self) -> None:
        """Time the next batch."""
        run = self.run
        run.check_signal_in_evaluation()
        for name, parameter in run.learnable.items():
            parameter.requires_grad_(any(fnmatch.fnmatchcase(name, pattern) for pattern in self.trainable))
        started = time.perf_counter()
        batch = self.batches[len(self.seconds) % len(self.batches)]
        with torch.set_grad_enabled(self.is_backward):
            _, loss = run.forward(run.engine.place(batch))
            if loss.sum.requires_grad:
                loss.sum.backward()
        run.engine.synchronize()
        self.seconds.append(time.perf_counter() - started)

    def typical(self) -> float:
        """Return the seconds of a batch, the first one left out."""
        return statistics.median(self.seconds[1:])


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

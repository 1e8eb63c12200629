"""What a run will cost: a few real steps are measured on this machine, then thrown away."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from .data import EpochBatches, windows
from .evaluation import evaluating, results_of
from .loop import admitted_draws, enter_stage, train_step
from .rangetest import STEPS
from .routine import evaluations_left

if TYPE_CHECKING:
    from .live import Run

PROBE_STEPS = 8

Window = list[dict[str, Any]]


@dataclass(frozen=True)
class Cost:
    """Hold the forecast of a run.

    Args:
        seconds_per_step: median of the probe's steps, the first left out; loading by one process included.
        loading_share: the share of it that is loading.
        seconds: all steps, those of a learning-rate range test included, and all evaluations, the latter by the
            measured time of one batch.
        parameters: all parameters of the model.
        learning: those that learn in the first stage.
        weight_bytes: weights and gradients.
        optimizer_bytes: the optimizer's state, measured.
        activation_bytes: what the backward pass keeps, measured.
    """

    seconds_per_step: float
    loading_share: float
    seconds: float
    parameters: int
    learning: int
    weight_bytes: int
    optimizer_bytes: int
    activation_bytes: int

    @property
    def memory_bytes(self) -> int:
        """Return the memory of training, without the libraries."""
        return self.weight_bytes + self.optimizer_bytes + self.activation_bytes


def measure(run: Run) -> Cost:
    """Return the cost of a run, measured on its first steps; the run is used up."""
    planned = run.stages[0]
    enter_stage(run, planned)
    loop = run.settings.loop
    batches = EpochBatches(run.batch_maker(), admitted_draws(run, planned), 0, loop.batch_size)
    probes, loading = _loaded(islice(windows(batches.iterate(0, 0, False), loop.accumulate), PROBE_STEPS))
    learning = sum(p.numel() for p in run.learnable.values() if p.requires_grad)
    activations = _Kept(run)
    with activations:
        run.forward(run.engine.place(probes[0][0]))
    seconds = []
    for window in probes if len(probes) > 1 else probes * 2:
        started = time.perf_counter()
        train_step(run, window)
        run.engine.synchronize()
        seconds.append(time.perf_counter() - started)
    per_step = statistics.median(seconds[1:]) + loading
    searched = STEPS if run.settings.lr_find else 0
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    gradient_bytes = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    return Cost(
        seconds_per_step=per_step,
        loading_share=loading / per_step,
        seconds=per_step * (run.total_steps + searched) + _sample_seconds(run) * _evaluated_samples(run),
        parameters=sum(p.numel() for p in run.model.parameters()),
        learning=learning,
        weight_bytes=sum(p.numel() * p.element_size() for p in run.model.parameters()) + gradient_bytes,
        optimizer_bytes=_tensor_bytes(run.optimizer.state),
        activation_bytes=activations.bytes,
    )


def _loaded(stream: Iterator[Window]) -> tuple[list[Window], float]:
    """Return the windows of a stream and the median of the seconds that they took, the first left out."""
    found, seconds, began = [], [], time.perf_counter()
    for window in stream:
        now = time.perf_counter()
        found.append(window)
        seconds.append(now - began)
        began = now
    return found, statistics.median(seconds[1:] or seconds)


def _sample_seconds(run: Run) -> float:
    """Return the seconds that one sample takes in an evaluation, predictions and metrics included."""
    dataset = run.splits.val or run.splits.train
    size = min(len(dataset), run.settings.evaluate.batch_size or run.settings.loop.batch_size)
    started = time.perf_counter()
    with evaluating(run):
        results_of(run, "val", dataset, limit=size)
    run.engine.synchronize()
    return (time.perf_counter() - started) / size


def _evaluated_samples(run: Run) -> int:
    """Return how many samples all evaluations of the plan look at, the final table's included."""
    lengths = {split: len(dataset) for split, dataset in run.splits.items()}
    looked_at = evaluations_left(run) * lengths.get("val", 0)
    if run.settings.evaluate.final:
        looked_at += sum(lengths.values()) - max(0, lengths["train"] - run.settings.evaluate.train_samples)
    return looked_at


def _tensor_bytes(state: Any) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(_tensor_bytes(value) for value in state.values())
    return 0


class _Kept:
    """Count the bytes that autograd keeps for the backward pass, each storage once, parameters left out."""

    def __init__(self, run: Run) -> None:
        self.bytes = 0
        self._seen = {p.untyped_storage().data_ptr() for p in run.model.parameters()}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._count, lambda kept: kept)

    def _count(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor

    def __enter__(self) -> None:
        self._hooks.__enter__()

    def __exit__(self, *exception: Any) -> None:
        self._hooks.__exit__(*exception)

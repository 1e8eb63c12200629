"""What a run will cost: a few real steps are measured on this machine, then thrown away."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainkit.checkpoint import Checkpoints
from trainkit.data import EpochBatches, windows
from trainkit.engine import device_name
from trainkit.loop import admitted_draws, enter_stage, train_step
from trainkit.lrfind.rangetest import STEPS
from trainkit.snapshot import stateful, take_snapshot

from .ahead import Ahead, ahead_of
from .prices import Price, price_of
from .probe import rehearsal_seconds, relative_costs, sample_seconds

if TYPE_CHECKING:
    from trainkit.live import Run

PROBE_STEPS = 8
EVALUATED_AFTER = (1, 4, 7)

Window = list[dict[str, Any]]


@dataclass(frozen=True)
class Cost:
    """Hold the forecast of a run.

    Args:
        seconds_per_step: mean over the plan; loading by one process included.
        loading_share: the share of it that is loading, in the first stage.
        seconds: all steps, those of a learning-rate range test included, all evaluations and all checkpoints.
        evaluating: the part of `seconds` that evaluations take.
        seconds_per_sample: of an evaluation, by the measured time of one batch.
        seconds_per_evaluation: besides its samples: what components do at each, as pictures of answers.
        saving: the part of `seconds` that checkpoints take, one for each evaluation, by the measured time of one.
        parameters: all parameters of the model.
        learning: those that learn in the first stage.
        weight_bytes: weights and gradients.
        optimizer_bytes: the optimizer's state, measured.
        component_bytes: what other components keep, as averages of weights, measured.
        activation_bytes: what the backward pass keeps, measured.
        device: name of the device.
        devices: how many of them work.
        price: what an hour of the device costs, where the price table says so.
    """

    seconds_per_step: float
    loading_share: float
    seconds: float
    evaluating: float
    seconds_per_sample: float
    seconds_per_evaluation: float
    saving: float
    parameters: int
    learning: int
    weight_bytes: int
    optimizer_bytes: int
    component_bytes: int
    activation_bytes: int
    device: str
    devices: int = 1
    price: Price | None = None

    @property
    def memory_bytes(self) -> int:
        """Return the memory of training, without the libraries."""
        return self.weight_bytes + self.optimizer_bytes + self.component_bytes + self.activation_bytes

    def amount(self, seconds: float | None = None) -> float | None:
        """Return the money for so many seconds, those of the run if not given; None for a device without a price."""
        return (
            None
            if self.price is None
            else self.price.amount(seconds if seconds is not None else self.seconds, self.devices)
        )

    def document(self) -> dict[str, Any]:
        """Return the forecast as JSON."""
        price = None if self.price is None else self.price.model_dump(mode="json")
        return asdict(self) | {"memory_bytes": self.memory_bytes, "price": price, "amount": self.amount()}


def measure(run: Run, prices: Sequence[Price] = ()) -> Cost:
    """Return the cost of a run, measured on its first steps; the run is used up.

    Args:
        run: a composed run.
        prices: the price table.
    """
    planned = run.stages[0]
    left = ahead_of(run)
    enter_stage(run, planned)
    loop = run.settings.loop
    # What one of several ranks has to do, all of which do it at once; what they tell each other is not measured.
    ranks = 1 if run.settings.devices == "auto" else run.settings.devices
    batches = EpochBatches(run.batch_maker(), admitted_draws(run, planned), 0, loop.batch_size, (0, ranks))
    probes, loading = _loaded(islice(windows(batches.iterate(0, 0, False), loop.accumulate), PROBE_STEPS))
    learning = sum(p.numel() for p in run.learnable.values() if p.requires_grad)
    activations = _Kept(run)
    with activations:
        run.forward(run.engine.place(probes[0][0]))
    seconds, samples, rehearsals = [], [], []
    for number, window in enumerate(probes if len(probes) > 1 else probes * 2):
        started = time.perf_counter()
        train_step(run, window)
        run.engine.synchronize()
        seconds.append(time.perf_counter() - started)
        if number in EVALUATED_AFTER:
            # What a model that has learned nothing yet generates is now short, now long: the median is neither.
            samples.append(sample_seconds(run) or 0.0)
            rehearsals.append(rehearsal_seconds(run))
    # Batches differ in length where samples do: the mean tells what many of them take, the first one left out.
    first = statistics.fmean(seconds[1:]) + loading
    relative = relative_costs(run, sum(left.steps))
    training = [count * first * cost / relative[0] for count, cost in zip(left.steps, relative, strict=True)]
    searching = first * STEPS if run.settings.lr_find else 0.0
    per_sample, per_evaluation = statistics.median(samples), statistics.median(rehearsals)
    evaluating = per_sample * left.samples / ranks + per_evaluation * left.rounds
    saving = _saving_seconds(run, left)
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    gradient_bytes = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    device = device_name(run.engine.device)
    return Cost(
        seconds_per_step=sum(training) / run.total_steps,
        loading_share=loading / first,
        seconds=sum(training) + searching + evaluating + saving,
        evaluating=evaluating,
        seconds_per_sample=per_sample,
        seconds_per_evaluation=per_evaluation,
        saving=saving,
        parameters=sum(p.numel() for p in run.model.parameters()),
        learning=learning,
        weight_bytes=sum(p.numel() * p.element_size() for p in run.model.parameters()) + gradient_bytes,
        optimizer_bytes=_tensor_bytes(run.optimizer.state),
        component_bytes=sum(_tensor_bytes(component.state_dict()) for component in stateful(run).values()),
        activation_bytes=activations.bytes,
        device=device,
        devices=ranks,
        price=price_of(device, prices),
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


def _saving_seconds(run: Run, left: Ahead) -> float:
    """Return the seconds that checkpoints take, one for each evaluation and one at least, each written to the end."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        checkpoints = Checkpoints(Path(folder))
        checkpoints.save(take_snapshot(run))
        checkpoints.close()
        return (time.perf_counter() - started) * max(1, left.evaluations)


def _tensor_bytes(state: Any) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(_tensor_bytes(value) for value in state.values())
    if isinstance(state, list | tuple):
        return sum(_tensor_bytes(value) for value in state)
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

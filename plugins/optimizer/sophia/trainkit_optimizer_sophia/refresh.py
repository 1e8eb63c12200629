"""The curvature of a run's last batch: which samples, which forward pass, which random numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from trainkit.contracts import SAMPLE_ID, LossOutput, Outputs
from trainkit.live import as_loss, as_mapping
from trainkit.optim import OptimizerError
from trainkit.randomness import Purpose, seed_torch

from .curvature import (
    Params,
    gauss_newton_bartlett,
    hutchinson,
    positions_that_count,
    refuse_compiled,
    twice_differentiable,
)

if TYPE_CHECKING:
    from trainkit.live import Run

Estimator = Literal["hutchinson", "gauss-newton-bartlett"]
DRAWS = 1


def first_samples(batch: Mapping[str, Any], count: int | None) -> Mapping[str, Any]:
    """Return the first samples of a batch; what does not have the samples along dimension 0 stays as it is."""
    size = len(batch[SAMPLE_ID])
    if count is None or count >= size:
        return batch
    return {name: value[:count] if _has_rows(value, size) else value for name, value in batch.items()}


def _has_rows(value: Any, size: int) -> bool:
    if isinstance(value, Tensor):
        return value.ndim > 0 and len(value) == size
    return isinstance(value, list | tuple) and len(value) == size


def check_run(run: Run, estimator: Estimator) -> None:
    """Raise OptimizerError where a run cannot give a curvature, before anything is trained."""
    if estimator == "hutchinson":
        refuse_compiled([run.model, run.loss])


def curvature_of(run: Run, params: Params, estimator: Estimator, samples: int | None) -> list[Tensor]:
    """Return the estimate for the last batch of a run; gradients, buffers and random states stay as they are.

    The draws follow from the seed and the step alone. The forward pass is that of training, dropout included, in the
    precision of the run; with fp16 it is in float32, as nothing scales the second derivative.
    """
    assert run.batch is not None
    batch = first_samples(run.batch, samples)
    with _states_kept(run), torch.enable_grad():
        seed_torch(run.settings.seed, Purpose.STEP, run.moment.window, DRAWS, _rank())
        if estimator == "hutchinson":
            with twice_differentiable(run.model, run.loss):
                _, loss = _forward(run, batch)
            return hutchinson(_mean(loss), params)
        outputs, loss = _forward(run, batch)
        logits = _logits(outputs)
        return gauss_newton_bartlett(logits, params, positions_that_count(logits, loss.sum))


def _forward(run: Run, batch: Mapping[str, Any]) -> tuple[Outputs, LossOutput]:
    if run.scaler is None:
        return run.forward(batch)
    outputs = as_mapping(run.call_model(batch))
    return outputs, as_loss(run.call_loss({**batch, **outputs}), batch)


def _rank() -> int:
    is_there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if is_there else 0


def _mean(loss: LossOutput) -> Tensor:
    count = loss.count.clamp(min=1) if isinstance(loss.count, Tensor) else max(loss.count, 1)
    return loss.sum / count


def _logits(outputs: Outputs) -> Tensor:
    logits = outputs.get("logits")
    if isinstance(logits, Tensor) and logits.ndim and logits.requires_grad:
        return logits
    raise OptimizerError(
        "sophia with estimator=gauss-newton-bartlett needs a model that gives `logits`",
        why=f"this one gives {', '.join(outputs) or 'nothing'}",
        do="take --set optimizer.estimator=hutchinson",
    )


@contextlib.contextmanager
def _states_kept(run: Run) -> Iterator[None]:
    """Leave random states and buffers, as the running averages of a norm, as they were."""
    buffers = [*run.model.buffers(), *run.loss.buffers()]
    before = [buffer.detach().clone() for buffer in buffers]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        yield
    with torch.no_grad():
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)

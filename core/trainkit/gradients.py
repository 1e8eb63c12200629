"""Gradients between backward pass and update: unscaled, normalised by the true count, checked, clipped."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from .ranks.sharding import whole
from .ranks.sharing import sum_gradients

if TYPE_CHECKING:
    from .live import Run
    from .ranks.world import World


class WindowCount:
    """Count what the losses of a window are summed over, on all ranks.

    Args:
        world: which rank counts.
        device: where counts of several ranks are summed.
        micro_batches: of the window.
    """

    def __init__(self, world: World, device: torch.device, micro_batches: int) -> None:
        self.world, self.device, self.micro_batches = world, device, micro_batches
        self.learned = False
        self.guess: Any = None
        self.total: Any = 0

    def add(self, count: Any) -> Any:
        """Note a micro-batch's count; return by what its sum is divided, the same in the whole window on all ranks."""
        self.learned = self.learned or not is_nothing(count)
        if self.guess is None and not (self.world.is_alone and is_nothing(count)):
            self.guess = at_least_one(self._summed(count)) * self.micro_batches
        self.total = self.total + count
        return self.guess

    def correction(self) -> Any:
        """Return the factor from the guessed count to the true one, or None for 1."""
        if self.guess is None or self.micro_batches == 1:
            return None
        return self.guess / at_least_one(self._summed(self.total))

    def _summed(self, count: Any) -> Any:
        if self.world.is_alone:
            return count
        return self.world.sum(torch.as_tensor(count, dtype=torch.float64, device=self.device).detach()).float()


def is_nothing(count: Any) -> bool:
    """Return whether a count is the number 0; a tensor is not read from its device to tell."""
    return not isinstance(count, torch.Tensor) and count == 0


def at_least_one(count: Any) -> Any:
    """Return the count, or 1 where nothing was counted."""
    return count.clamp(min=1) if isinstance(count, torch.Tensor) else max(count, 1)


def pool(run: Run, learned: bool, samples: int) -> bool:
    """Give every rank the gradients of the whole window, and its samples; return whether any rank has learned.

    Args:
        run: the run; its parameters carry the gradients of this rank's share.
        learned: whether there was anything to learn in that share.
        samples: of that share, which the moment has counted.
    """
    if run.world.is_alone:
        return learned
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    rows = run.world.table([learned, samples, *(p.grad is not None for p in parameters)])
    run.moment.samples += int(sum(row[1] for row in rows)) - samples
    sum_gradients(run.world, parameters, [any(column) for column in list(zip(*rows, strict=True))[2:]])
    return any(row[0] for row in rows)


def finish_gradients(run: Run, correction: Any) -> tuple[Any, bool]:
    """Finish the gradients in place; return their norm before clipping, and False if the step must be skipped.

    Args:
        run: the run; its parameters carry the gradients.
        correction: factor from the guessed to the true count of the window, or None for 1.

    Where an update cannot be taken back, the norm is read before it. A fused optimizer can be told on the device to do
    nothing; then nothing waits, and the norm is looked at when the next row is due.
    """
    if run.scaler is not None:
        run.scaler.unscale_(run.optimizer)
    gradients = [p.grad for group in run.optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not gradients:
        return 0.0, True
    norm = _norm(run, gradients)
    if defers_check(run):
        return _finish_on_device(run, gradients, norm, correction), True
    return _finish(run, gradients, norm, correction)


def _norm(run: Run, gradients: list[Any]) -> Any:
    """Return the norm of all gradients; of sharded ones, that of the whole."""
    if not run.is_sharded:
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    norms = [whole(torch.linalg.vector_norm(gradient)) for gradient in gradients]
    return torch.linalg.vector_norm(torch.stack(norms))


def defers_check(run: Run) -> bool:
    """Return whether a step that is not finite can be made void on the device."""
    able = getattr(run.optimizer, "_step_supports_amp_scaling", False) and not run.is_sharded
    return run.engine.is_cuda and run.scaler is None and able and run.settings.loop.nan_policy == "stop"


def _finish(run: Run, gradients: list[Any], norm: Any, correction: Any) -> tuple[float, bool]:
    corrected = 1.0 if correction is None else float(correction)
    value = float(norm) * corrected
    if not math.isfinite(value):
        return value, False
    clip = run.settings.loop.clip
    factor = corrected if clip is None else corrected * min(1.0, clip / (value + 1e-6))
    if factor != 1.0:
        torch._foreach_mul_(gradients, factor)
    return value, True


def _finish_on_device(run: Run, gradients: list[Any], norm: Any, correction: Any) -> Any:
    corrected = torch.ones_like(norm) if correction is None else torch.as_tensor(correction, device=norm.device).float()
    norm = norm * corrected
    clip = run.settings.loop.clip
    factor = corrected if clip is None else corrected * (clip / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor)
    # The two attributes are those by which torch's own gradient scaler makes a fused step void.
    run.optimizer.grad_scale = None  # type: ignore[attr-defined]
    run.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
    return norm

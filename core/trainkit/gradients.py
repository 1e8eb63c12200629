"""Gradients between backward pass and update: unscaled, normalised by the true count, checked, clipped."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .live import Run


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
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if defers_check(run):
        return _finish_on_device(run, gradients, norm, correction), True
    return _finish(run, gradients, norm, correction)


def defers_check(run: Run) -> bool:
    """Return whether a step that is not finite can be made void on the device."""
    able = getattr(run.optimizer, "_step_supports_amp_scaling", False)
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

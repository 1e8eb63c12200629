"""The learning rate over a plan, computed from the scheduler itself before anything is trained."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from .stages import schedule_span

if TYPE_CHECKING:
    from .draft import Draft

STEP_BY_STEP = 20_000


def learning_rate_curve(draft: Draft, points: int = 200) -> list[tuple[int, float]]:
    """Return (step, learning rate) pairs over the whole plan, evenly spread.

    A schedule of up to 20,000 steps is stepped through; a longer one is asked at the points alone.
    """
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = draft.parts["optimizer"].build(params=[parameter])
    base = float(optimizer.param_groups[0]["lr"])
    wanted = sorted({round(i * (draft.total_steps - 1) / max(points - 1, 1)) for i in range(points)})
    curve: list[tuple[int, float]] = []
    scheduler, start = None, 0
    for index, planned in enumerate(draft.stages):
        begins, steps = schedule_span(draft.stages, index)
        rate = base * planned.stage.lr_factor
        if begins or scheduler is None:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.param_groups[0].pop("initial_lr", None)
            scheduler, start = (
                draft.parts["scheduler"].build(optimizer=optimizer, total_steps=steps),
                planned.first_step,
            )
        else:
            scheduler.base_lrs = [rate]
        for step in (s for s in wanted if planned.first_step <= s < planned.last_step):
            _advance(scheduler, step - start, steps > STEP_BY_STEP)
            curve.append((step, float(optimizer.param_groups[0]["lr"])))
    return curve


def _advance(scheduler: torch.optim.lr_scheduler.LRScheduler, step: int, jump: bool) -> None:
    with warnings.catch_warnings():
        # PyTorch warns that no optimizer step was made: none is meant to be.
        warnings.simplefilter("ignore", UserWarning)
        if jump and step > scheduler.last_epoch:
            scheduler.last_epoch = step - 1
        while scheduler.last_epoch < step:
            scheduler.step()

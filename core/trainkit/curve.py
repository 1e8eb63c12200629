"""The learning rate over a plan, computed from the scheduler itself and checked before anything is trained."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from .config import DEFAULTS, short_names
from .conformity import asked
from .errors import UsageError
from .fit import check_tag
from .schedule import FactorScheduler, set_base_rates
from .stages import schedule_span

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

    from .draft import Draft
    from .parts import Part

STEP_BY_STEP = 20_000
CHECKED_POINTS = 1_000
MOST_AT_ZERO = 0.01


def probe_optimizer(part: Part) -> torch.optim.Optimizer:
    """Return an optimizer as the run will have it, built on a group with one parameter of its own."""
    group = {"name": "decay", "params": [torch.nn.Parameter(torch.zeros(2, 2))]}
    optimizer: torch.optim.Optimizer = part.build(params=[group])
    return optimizer


def learning_rate_curve(draft: Draft, points: int = 200) -> list[tuple[int, float]]:
    """Return (step, learning rate) pairs over the whole plan, evenly spread.

    A scheduler that is no `FactorScheduler` is stepped through a schedule of up to 20,000 steps; in a longer one it is
    asked at the points alone. One that hears evaluations is drawn as if it heard none.
    """
    with warnings.catch_warnings():
        # The draft has them.
        warnings.simplefilter("ignore", UserWarning)
        return _curve(draft, points)


def _curve(draft: Draft, points: int) -> list[tuple[int, float]]:
    optimizer = _stand_in(draft)
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
            scheduler, start = _scheduler(draft, optimizer, steps), planned.first_step
        else:
            _advance(scheduler, planned.first_step - start, steps > STEP_BY_STEP)
            set_base_rates(scheduler, [rate])
        for step in (s for s in wanted if planned.first_step <= s < planned.last_step):
            _advance(scheduler, step - start, steps > STEP_BY_STEP)
            curve.append((step, float(optimizer.param_groups[0]["lr"])))
    return curve


def check_schedule(draft: Draft) -> list[str]:
    """Return what a user should know about the learning rates of a plan.

    Raises:
        UsageError: the schedule does not fit the plan, or needs evaluations that the run does not make.
    """
    if draft.parts["scheduler"].component.is_live:
        # It belongs to an optimizer of its own: stepping it here would be seen there.
        return []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        curve = _checked_curve(draft)
    _check_metric(draft)
    notes = list(dict.fromkeys(str(warning.message) for warning in caught))
    share = sum(rate == 0 for _, rate in curve) / len(curve)
    if share > MOST_AT_ZERO:
        notes.append(
            f"the learning rate is 0 on {share:.0%} of the steps, which learn nothing: look at its drawing, and see "
            "whether all lengths are in optimizer steps"
        )
    return notes


def _checked_curve(draft: Draft) -> list[tuple[int, float]]:
    try:
        with asked(f"scheduler {draft.config['scheduler.use']}", "give its learning rates"):
            return _curve(draft, CHECKED_POINTS)
    except UsageError as error:
        if error.where not in draft.config:
            raise
        place = f"{error.where}, {draft.config.origin(error.where)}"
        raise UsageError(error.what, where=place, why=error.why, do=error.do) from None


def awaited_metric(draft: Draft) -> str:
    """Return the tag of the value that the scheduler waits for; '' where the step alone decides."""
    _, steps = schedule_span(draft.stages, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        scheduler: Any = _scheduler(draft, _stand_in(draft), steps)
    if not getattr(scheduler, "requires_metric", False):
        return ""
    return str(getattr(scheduler, "monitor", None) or draft.settings.evaluate.monitor)


def _check_metric(draft: Draft) -> None:
    tag = awaited_metric(draft)
    if not tag:
        return
    name, evaluate = draft.config["scheduler.use"], draft.settings.evaluate
    what, why = f"scheduler {name} waits for {tag}, which this run does not measure", ""
    do = f"or take a scheduler that needs no validation, as --scheduler {DEFAULTS['scheduler.use']}"
    if draft.splits.val is None:
        why, do = "the data has no validation split", f"give the data one, {do}"
    elif evaluate.every_epochs is None and evaluate.every_steps is None:
        why = "evaluate.every_epochs and evaluate.every_steps are none: nothing is evaluated before the end"
        do = f"--set evaluate.every_epochs=1, {do}"
    if why:
        raise UsageError(what, where=f"scheduler.use, {draft.config.origin('scheduler.use')}", why=why, do=do)
    check_tag(tag, short_names(draft.lists["metric"]).values(), draft.config, "scheduler.monitor")


def _scheduler(draft: Draft, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    scheduler: LRScheduler = draft.parts["scheduler"].build(optimizer=optimizer, total_steps=steps)
    return scheduler


def _stand_in(draft: Draft) -> torch.optim.Optimizer:
    """Return one with the options of the run's and nothing else of it: an object that was given stays whole."""
    probe = probe_optimizer(draft.parts["optimizer"])
    options = {name: value for name, value in probe.param_groups[0].items() if name not in ("params", "param_names")}
    return torch.optim.Optimizer([{**options, "params": [torch.nn.Parameter(torch.zeros(2, 2))]}], probe.defaults)


def _advance(scheduler: LRScheduler, step: int, jump: bool) -> None:
    if isinstance(scheduler, FactorScheduler):
        scheduler.step(step)
        return
    with warnings.catch_warnings():
        # PyTorch warns that no optimizer step was made: none is meant to be.
        warnings.simplefilter("ignore", UserWarning)
        if jump and step > scheduler.last_epoch:
            scheduler.last_epoch = step - 1
        while scheduler.last_epoch < step:
            scheduler.step()

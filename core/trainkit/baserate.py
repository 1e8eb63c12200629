"""The learning rate that a range test looks for, and where there is none to look for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .curve import probe_optimizer
from .errors import UsageError

if TYPE_CHECKING:
    from .draft import Draft
    from .live import Run

KEY = "optimizer.lr"


def base_rate(run: Run) -> float:
    """Return the rate of `optimizer.lr` of a run; raise UsageError where a rate has no meaning."""
    check_takes_rate(run.optimizer, run.config["optimizer.use"])
    base = float(run.optimizer.defaults.get("lr", run.base_rates[0]))
    stage = run.stages[0].stage
    if base > 0 and stage.lr_factor > 0 and any(run.base_rates):
        return base
    raise UsageError(
        "there is no learning rate to find: the plan trains with a rate of 0",
        where=f"{KEY} = {base:g}, {run.config.origin(KEY)}; stages.{stage.name}.lr_factor = {stage.lr_factor:g}",
        do=f"set a rate above 0, as --set {KEY}=1e-3: the ratios between parameter groups are taken from it",
    )


def check_takes_rate(optimizer: Any, name: str) -> None:
    """Raise UsageError for an optimizer that sets its steps itself, as schedule-free ones, Prodigy and Adafactor do."""
    if not getattr(optimizer, "takes_rate", True):
        raise UsageError(
            f"optimizer {name} takes no learning rate from outside, so there is none to find",
            why="it sets the size of its steps itself (takes_rate is False)",
            do="train without a search, or take an optimizer with a rate, as --optimizer adamw",
        )


def check_can_find(draft: Draft) -> None:
    """Raise UsageError where a rate that was found could not be set, before anything is built."""
    part, name = draft.parts["optimizer"], draft.config["optimizer.use"]
    check_takes_rate(probe_optimizer(part), name)
    if "lr" not in part.options:
        raise UsageError(
            f"optimizer {name} has no option lr, so a rate that was found could not be set",
            why=f"its options: {', '.join(part.options) or 'none'}",
            do="name the optimizer, or give its class, in place of an object or a function without that parameter",
        )

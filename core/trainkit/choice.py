"""What is chosen for the user: the strategy by the number of samples, what of a task's proposals fits, a scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .config import FALLBACK_STRATEGY, NULL_SCHEDULER, Config, Layer, Value, short_name
from .errors import PluginError, UsageError

if TYPE_CHECKING:
    from .component import Component


def choose_strategy(names: Iterable[str], load: Callable[[str], Component], samples: int) -> tuple[str, str]:
    """Return the strategy whose range holds this many samples (of several the narrowest), and the reason.

    Args:
        names: the installed strategies.
        load: from a name to the component.
        samples: training samples.
    """
    holding = []
    for name in names:
        try:
            target = load(name).target
        except PluginError:
            # A strategy that nobody named and that does not load is no reason to stop; 'trainkit plugins' shows it.
            continue
        if (span := getattr(target, "samples", None)) is not None and _holds(span, samples):
            holding.append((math.inf if span[1] is None else span[1] - span[0], name, span))
    if not holding:
        return FALLBACK_STRATEGY, f"no installed strategy declares a range that holds {samples:,} training samples"
    holding.sort()
    width, name, span = holding[0]
    if len(holding) > 1 and holding[1][0] == width:
        raise UsageError(
            f"strategies {name} and {holding[1][1]} both declare the range {_range_text(span)}",
            do=f"choose one: --strategy {name}",
        )
    return name, f"{samples:,} training samples lie in its range, {_range_text(span)}"


def named_strategy(named: Value, span: tuple[int, int | None] | None, samples: int) -> Value:
    """Return a strategy that the user named; where it is meant for other data, that is its reason.

    Args:
        named: the strategy as it was named.
        span: the range of samples that it declares.
        samples: training samples.
    """
    if span is None or _holds(span, samples) or named.reason:
        return named
    return replace(named, reason=f"meant for {_range_text(span)} training samples, there are {samples:,}")


def fitting(proposed: Layer, config: Config) -> Layer:
    """Return what a task proposes, without its options for an optimizer where another one was named.

    A rate, above all, is worth something for one optimizer alone.

    Args:
        proposed: by the task.
        config: what is in force, the user's own settings among it.
    """
    key = "optimizer.use"
    own = proposed.get(key)
    if own is None or config.origin(key) == "default" or short_name(str(config[key])) == short_name(own.value):
        return proposed
    return {name: value for name, value in proposed.items() if not name.startswith("optimizer.")}


def leave_rates_alone(config: Config, user: Sequence[Layer]) -> None:
    """Take the scheduler that leaves learning rates alone, for an optimizer that sets them itself.

    Args:
        config: what is in force; it is changed.
        user: what the user asked for.

    Raises:
        UsageError: the user asked for another scheduler, or for an option of the scheduler.
    """
    optimizer, scheduler = config["optimizer.use"], config["scheduler.use"]
    rule = "its attribute takes_scheduler is False, as it sets its learning rates itself"
    named = {config.in_full(key) for layer in user for key in layer}
    is_null = isinstance(scheduler, str) and short_name(scheduler) == NULL_SCHEDULER
    if "scheduler.use" in named and not is_null:
        raise UsageError(
            f"optimizer {optimizer} takes no scheduler (got {scheduler})",
            where=f"scheduler.use, {config.origin('scheduler.use')}",
            why=rule,
            do=f"--scheduler {NULL_SCHEDULER}, or another optimizer",
        )
    for key in sorted(named - {"scheduler.use"}):
        if key.startswith("scheduler.") and key in config:
            raise UsageError(
                f"optimizer {optimizer} takes no scheduler, so {key} has no effect",
                where=config.origin(key),
                why=rule,
                do="leave it out, or take another optimizer",
            )
    if not is_null:
        config.add({"scheduler.use": Value(NULL_SCHEDULER, f"optimizer {optimizer}", rule)})


def _holds(span: tuple[int, int | None], samples: int) -> bool:
    return span[0] <= samples and (span[1] is None or samples <= span[1])


def _range_text(span: tuple[int, int | None]) -> str:
    return f"{span[0]:,} and more" if span[1] is None else f"{span[0]:,} to {span[1]:,}"

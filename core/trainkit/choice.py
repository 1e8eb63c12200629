"""Which strategy: the one whose range of training samples holds this many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from .config import FALLBACK_STRATEGY
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
    fitting = []
    for name in names:
        try:
            target = load(name).target
        except PluginError:
            # A strategy that nobody named and that does not load is no reason to stop; 'trainkit plugins' shows it.
            continue
        if (span := getattr(target, "samples", None)) is not None and _holds(span, samples):
            fitting.append((math.inf if span[1] is None else span[1] - span[0], name, span))
    if not fitting:
        return FALLBACK_STRATEGY, f"no installed strategy declares a range that holds {samples} training samples"
    fitting.sort()
    width, name, span = fitting[0]
    if len(fitting) > 1 and fitting[1][0] == width:
        raise UsageError(
            f"strategies {name} and {fitting[1][1]} both declare the range {_range_text(span)}",
            do=f"choose one: --strategy {name}",
        )
    return name, f"{samples} training samples lie in its range, {_range_text(span)}"


def _holds(span: tuple[int, int | None], samples: int) -> bool:
    return span[0] <= samples and (span[1] is None or samples <= span[1])


def _range_text(span: tuple[int, int | None]) -> str:
    return f"{span[0]:,} and more" if span[1] is None else f"{span[0]:,} to {span[1]:,}"

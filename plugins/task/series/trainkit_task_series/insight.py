"""What a Temporal Fusion Transformer looked at: attention over the past, and the weights of its variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from trainkit.contracts import Panel as Shown
from trainkit.reporting.bars import bar_plot
from trainkit.reporting.plot import Mark, line_plot

from .calendar import Calendar
from .learned import Learned
from .schema import Schema

DISTANCE = "distance"
CIRCLES = ("hour", "weekday", "month")


@dataclass(frozen=True)
class Insight:
    """Hold what counted for one forecast.

    Args:
        attention: [C + H] mean over the steps of the horizon.
        context: C.
        weights: for 'past', 'future' and 'static' the mean weight of each variable.
    """

    attention: np.ndarray
    context: int
    weights: Mapping[str, Mapping[str, float]]

    def panels(self) -> list[Shown]:
        """Return plots of the attention over time and of the weights of variables."""
        steps = range(-self.context, len(self.attention) - self.context)
        points = [(float(step), float(value)) for step, value in zip(steps, self.attention, strict=True)]
        label = "steps from the first that is forecast"
        plot = line_plot({"attention": points}, label, "mean attention", marks=[Mark(0.0, "forecast")])
        return [Shown("attention", plot), Shown("weights of variables", bar_plot(self.weights))]


def variables_of(schema: Schema, calendar: Sequence[Calendar], season_skip: bool) -> dict[str, list[str]]:
    """Return the names of the variables of each selection, in the model's order."""
    clock: list[str] = []
    for name in calendar:
        clock += [f"{name} (sine)", f"{name} (cosine)"] if name in CIRCLES else [name]
    known = [*schema.known, *clock, DISTANCE]
    before = [f"{name} a season before" for name in schema.targets] if season_skip else []
    return {"past": [*schema.targets, *schema.observed, *known], "future": [*before, *known]}


def insights_of(outputs: Mapping[str, Any], context: int, learned: Learned, season_skip: bool) -> list[Insight]:
    """Return what counted for each sample; none where the model tells nothing."""
    if "attentions" not in outputs:
        return []
    names = variables_of(learned.schema, learned.calendar, season_skip)
    words = [name for name, found in zip(learned.schema.statics, learned.words, strict=True) if found]
    names["static"] = words + [name for name in learned.schema.statics if name not in words]
    attention = outputs["attentions"].float().mean(1).cpu().numpy()
    means: dict[str, np.ndarray] = {}
    for part in ("past", "future", "static"):
        weights: Tensor | None = outputs.get(f"{part}_weights")
        if weights is not None and names[part]:
            means[part] = weights.float().mean(1).cpu().numpy() if weights.ndim == 3 else weights.float().cpu().numpy()
    return [
        Insight(
            row,
            context,
            {
                part: {name: float(value) for name, value in zip(names[part], mean[place], strict=True)}
                for part, mean in means.items()
            },
        )
        for place, row in enumerate(attention)
    ]

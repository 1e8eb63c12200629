"""The ends of series, of which the future is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from trainkit.contracts import Sample
from trainkit.errors import DataError
from trainkit.tables import listed

from .bars import Bars
from .grid import Grid, duration, stamp
from .learned import Learned
from .panel import Panel
from .relative import usual_span, with_relative
from .rows import Rows
from .scaling import Scaling, season_error
from .splitting import Mask
from .times import Times
from .windows import SHARED, Windows


class Ends:
    """Hold one window for each series, its horizon after the last measured target.

    Args:
        panel: C + H rows of each series, what lies ahead without targets.
        windows: over the panel.
        own_scale: series that are scaled by their own past, as training did not know them.
    """

    def __init__(self, panel: Panel, windows: Windows, own_scale: frozenset[str]) -> None:
        self.panel, self.windows, self.own_scale = panel, windows, own_scale
        self.ids = panel.names
        self.warnings: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.windows)

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        batch = self.windows.__getitems__(indices)
        shared: dict[str, Any] = {name: batch.pop(name) for name in SHARED}
        return [
            {name: values[place] for name, values in batch.items()}
            | shared
            | {"name": self.panel.names[index], "scaled_by_itself": self.panel.names[index] in self.own_scale}
            for place, index in enumerate(indices)
        ]


def ends_of(rows: Rows, grid: Grid | Bars, learned: Learned, context: int, horizon: int) -> Ends:
    """Return the end of each series: its last `context` steps, and what is known of the `horizon` after them.

    Steps that are not there count as missing.

    Args:
        rows: in order.
        grid: their times.
        learned: what was learned in training.
        context: steps of the past.
        horizon: steps that are forecast.

    Raises:
        DataError: a series has no measured target near its end, or lacks inputs that have to be known ahead.
    """
    schema = learned.schema
    targets, count = len(schema.targets), len(rows.names)
    places = grid.places(rows.times, rows.series)
    measured = np.isfinite(rows.values[:, :targets]).any(axis=1)
    last = np.full(count, np.iinfo(np.int64).min)
    np.maximum.at(last, rows.series[measured], places[measured])
    there = set(rows.series[measured].tolist())
    if without := [name for number, name in enumerate(rows.names) if number not in there]:
        raise DataError("a series has no target that was measured", where=listed(without))
    length = context + horizon
    offset = places - last[rows.series] + context - 1
    kept = (offset >= 0) & (offset < length)
    values = np.full((count, length, rows.values.shape[1]), np.nan)
    values[rows.series[kept], offset[kept]] = rows.values[kept]
    known = targets + len(schema.observed)
    values[:, context:, :known] = np.nan
    _check_known(values[:, context:, known:], learned, rows.names, grid.times(last, np.arange(count)))
    first = np.repeat(np.arange(count) * length, length)
    series = np.repeat(np.arange(count), length)
    times = grid.times((last[:, None] - context + 1 + np.arange(length)).reshape(-1), series)
    flat = values.reshape(count * length, -1)
    panel = Panel(rows.names, series, first, first + length - 1, times, flat, rows.statics, grid)
    everything = np.ones(len(panel), dtype=bool)
    scaling, own = scaling_for(panel, learned, context, everything)
    windows = Windows(np.arange(count) * length + context, context, horizon, rows.names)
    windows.store = learned.store(panel, scaling)
    return Ends(panel, windows, frozenset(own))


def _check_known(ahead: np.ndarray, learned: Learned, names: Sequence[str], last: Times) -> None:
    if not learned.schema.known or np.isfinite(ahead).all():
        return
    series, _, column = (int(place[0]) for place in np.nonzero(~np.isfinite(ahead)))
    raise DataError(
        f"column {learned.schema.known[column]!r} has to be known ahead, and is not there",
        where=f"{names[series]}, after {stamp(int(last[series]))}",
        why=f"the model was trained with it as known over the horizon of {ahead.shape[1]} steps, "
        f"{duration(ahead.shape[1] * learned.step)}",
        do="add rows after the last measured one, with this column filled and the targets empty",
    )


def scaling_for(panel: Panel, learned: Learned, context: int, rows: Mask) -> tuple[Scaling, Sequence[str]]:
    """Return scales of a panel's series, those of training by name, and which series are scaled by rows of their own.

    Args:
        panel: the series.
        learned: what was learned in training.
        context: steps of the past.
        rows: [N] which rows a series that training did not know may be scaled by.
    """
    trained = {name: place for place, name in enumerate(learned.scaling.names)}
    follows = np.arange(len(panel)) - learned.season >= panel.first
    targets, method = len(learned.schema.targets), learned.scaling.method
    own = Scaling.learned(panel.names, panel.series, panel.values, follows, rows, method, learned.season, targets)
    own = with_relative(own, panel, rows, learned.relative_columns, usual_span(context))
    unknown = []
    for place, name in enumerate(panel.names):
        if name not in trained:
            unknown.append(name)
            # The unit of MASE is no input of the model: all rows tell it.
            mine = np.flatnonzero(panel.series == place)
            own.season_error[place] = season_error(panel.values[:, :targets], mine[follows[mine]], learned.season)
            continue
        number = trained[name]
        own.loc[place], own.scale[place] = learned.scaling.loc[number], learned.scaling.scale[number]
        own.season_error[place] = learned.scaling.season_error[number]
    return own, unknown

"""Forecast error: how far forecasts are off, in which unit you like, and whether their bands hold what they promise."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt
from torch import Tensor
from trainkit import SumMetric, UsageError
from trainkit.targets import target_names as named

from .figures import Figure, Values, figures_of
from .members import MOST_SERIES, row_names, worst
from .sums import by_series, interval_sums, point_sums, quantile_sums, scaled_sums, seasonal_sums, truth_of

Level = Annotated[float, Field(gt=0, lt=1)]
ABOUT_EQUAL = 1e-6
# The sums of series are one tensor; what is summed stands in its name, so that those of several ranks can be added.
OF_SERIES = "by series"
_log = logging.getLogger(__name__)


class ForecastError(SumMetric):
    """Compute errors of forecasts in original units: over all values, by target, by step of the horizon, by series.

    Rules are those of 6.5. Everything is summed before it is divided, so a figure does not depend on batches; a value
    that was not measured is nowhere. What a batch does not give (season errors, scales, quantiles) has no figures.
    MASE is the mean of |error| / season error over all values of series that moved in training, and the share of those
    values stands beside it [reading: several series]. CRPS is twice the mean quantile loss, to which it comes as levels
    get denser.

    Args:
        main: the figure that comes first, and so stands for the metric.
        target_figures: the figures that each target has a row of, where there are several.
        step_figures: the figures that steps of the horizon have a row of, where there are several.
        series_figures: the figures that each series has a row of, where there are several; of more than 32 series the
            three worst by `main`. None: series are not told apart.
        steps: those steps, from 1; the first and each quarter of the horizon if none is named.
        interval: levels of the lower and the upper bound of the band; the outermost ones if not given.
    """

    higher_is_better = False

    def __init__(
        self,
        main: Figure = "mase",
        target_figures: tuple[Figure, ...] = ("mase", "mae", "rmse", "pinball", "coverage"),
        step_figures: tuple[Figure, ...] = ("mase", "mae"),
        series_figures: tuple[Figure, ...] = ("mase", "mae", "crps", "coverage"),
        steps: tuple[PositiveInt, ...] = (),
        interval: tuple[Level, Level] | None = None,
    ) -> None:
        super().__init__()
        if interval is not None and interval[0] >= interval[1]:
            raise UsageError(f"metric forecast-error: the interval {interval} is none", do="give the lower level first")
        self.main: Figure = main
        self.target_figures, self.step_figures, self.series_figures = target_figures, step_figures, series_figures
        self.steps, self.interval = steps, interval
        self._targets: tuple[str, ...] | None = None
        self._series: tuple[str, ...] | None = None
        self._levels: tuple[float, ...] = ()
        self._has_told = False

    def update(
        self,
        forecast: Tensor,
        truth: Tensor,
        truth_mask: Tensor | None = None,
        forecast_quantiles: Tensor | None = None,
        quantile_levels: Tensor | None = None,
        season_error: Tensor | None = None,
        scale: Tensor | None = None,
        target_names: Sequence[str] | None = None,
        series: Tensor | None = None,
        series_names: Sequence[str] | None = None,
    ) -> None:
        """Add a batch, in original units.

        Args:
            forecast: [B, H, T] medians or means.
            truth: [B, H, T].
            truth_mask: [B, H, T] True where it was measured; where it is not NaN if not given.
            forecast_quantiles: [B, H, T, Q].
            quantile_levels: [Q], rising.
            season_error: [B, T] mean |y_t - y_{t-m}| of the training part of the series.
            scale: [B, T] by which values were divided for the model.
            target_names: names of the T targets.
            series: [B] number of the series.
            series_names: names of all series; without them series are not told apart.
        """
        if forecast.shape != truth.shape or truth.ndim != 3:
            raise ValueError(f"forecast {list(forecast.shape)} and truth {list(truth.shape)} are to be [B, H, T]")
        if target_names is not None:
            self._targets = named(truth.shape[-1], target_names)
        facts, forecast = truth_of(truth, truth_mask), forecast.double()
        sums = point_sums(forecast, facts)
        if season_error is not None:
            sums |= seasonal_sums(forecast, facts, season_error)
        if scale is not None:
            sums |= scaled_sums(forecast, facts, scale)
        if forecast_quantiles is not None and quantile_levels is not None:
            quantiles, levels = forecast_quantiles.double(), self._known(quantile_levels)
            sums |= quantile_sums(quantiles, facts, levels)
            if (band := self._band(levels)) is not None:
                low, high = band
                miss_rate = 1 - (levels[high] - levels[low])
                sums |= interval_sums(quantiles[..., low], quantiles[..., high], facts, miss_rate)
        self.add(**{name: total.by_step for name, total in sums.items()})
        if self.series_figures and series is not None and series_names is not None and len(series_names) > 1:
            self._series = tuple(series_names)
            self.add(**{"|".join((OF_SERIES, *sums)): by_series(sums, series, len(series_names))})

    def compute(self) -> dict[str, float]:
        """Return the main figure, every figure over all values, then those by target, by step and by series."""
        overall = self.figures()
        results = {self.main: overall.pop(self.main, float("nan")), **overall}
        sums = self._by_step()
        steps, targets = sums["count"].shape if sums else (1, 1)
        if targets > 1:
            found = figures_of({name: amount.sum(0) for name, amount in sums.items()})
            results |= rows(found, self.target_figures, enumerate(row_names(named(targets, self._targets))))
        if steps > 1:
            found = figures_of({name: amount.sum(1) for name, amount in sums.items()})
            shown = [(step - 1, f"step-{step}") for step in self._shown(steps)]
            results |= rows(found, self.step_figures, shown)
        return results | self._series_rows()

    def figures(
        self, step: int | None = None, target: int | None = None, series: int | None = None
    ) -> dict[str, float]:
        """Return every figure over all values, of one step of the horizon, of one target, of one series.

        Args:
            step: from 1; all together if not given.
            target: from 0; all together if not given.
            series: its number; all together if not given. Not beside a step.
        """
        if step is not None and series is not None:
            raise ValueError("figures of a step are not told apart by series")
        sums = self._by_step() if series is None else self._by_series()
        row = step - 1 if step is not None else series
        rows = slice(None) if row is None else slice(row, row + 1)
        targets = slice(None) if target is None else slice(target, target + 1)
        found = figures_of({name: amount[rows, targets].sum() for name, amount in sums.items()})
        return {figure: float(value) for figure, value in found.items()}

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._targets, self._series, self._levels = None, None, ()

    def _by_step(self) -> dict[str, Values]:
        """Return the sums [H, T]."""
        return {name: sums.cpu().numpy() for name, sums in self.sums.items() if not name.startswith(OF_SERIES)}

    def _by_series(self) -> dict[str, Values]:
        """Return the sums [series, T]."""
        found: dict[str, Values] = {}
        for key, sums in self.sums.items():
            if key.startswith(OF_SERIES):
                amounts = np.moveaxis(sums.cpu().numpy(), -1, 0)
                for name, amount in zip(key.split("|")[1:], amounts, strict=True):
                    found[name] = found[name] + amount if name in found else amount
        return found

    def _series_rows(self) -> dict[str, float]:
        sums = {name: amount.sum(1) for name, amount in self._by_series().items()}
        if not sums:
            return {}
        found, count = figures_of(sums), len(sums["count"])
        there = np.flatnonzero(sums["count"] > 0).tolist()
        if len(there) < 2:
            return {}
        if len(there) > MOST_SERIES:
            figure: Figure = self.main if self.main in found else "mae"
            there = worst(figure, found[figure])
            self._tell_once(f"of {count} series the {len(there)} worst by {figure} have rows of their own")
        names = row_names(named(count, self._series))
        return rows(found, self.series_figures, [(place, f"series/{names[place]}") for place in there])

    def _tell_once(self, what: str) -> None:
        if not self._has_told:
            _log.warning("forecast-error: %s", what)
        self._has_told = True

    def _known(self, levels: Tensor) -> tuple[float, ...]:
        # Read once: to read them makes the processor wait for a GPU.
        if len(self._levels) != len(levels):
            self._levels = tuple(float(f"{level:.6g}") for level in levels.tolist())
        return self._levels

    def _band(self, levels: Sequence[float]) -> tuple[int, int] | None:
        if self.interval is None:
            return (0, len(levels) - 1) if len(levels) > 1 else None
        near = [[i for i, level in enumerate(levels) if abs(level - q) < ABOUT_EQUAL] for q in self.interval]
        if not all(near):
            raise UsageError(
                f"metric.forecast-error.interval: {' and '.join(map(str, self.interval))} are not both forecast",
                why=f"the model's levels: {', '.join(map(str, levels))}",
            )
        return near[0][0], near[1][0]

    def _shown(self, steps: int) -> list[int]:
        if beyond := [step for step in self.steps if step > steps]:
            raise UsageError(f"metric.forecast-error.steps: {beyond[0]} is beyond the horizon of {steps} steps")
        quarters = {math.ceil(steps * part / 4) for part in range(1, 5)}
        return sorted(set(self.steps) or {1, *quarters})


def rows(found: Mapping[str, Values], figures: Sequence[Figure], places: Iterable[tuple[int, str]]) -> dict[str, float]:
    """Return rows FIGURE/NAME of these places in figures, all of a place together."""
    shown = [figure for figure in figures if figure in found]
    return {f"{figure}/{name}": float(found[figure][place]) for place, name in places for figure in shown}

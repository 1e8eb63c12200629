"""Forecast error: how far forecasts are off, in which unit you like, and whether their bands hold what they promise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor
from trainkit import SumMetric, UsageError
from trainkit.targets import target_names as named

from .figures import Figure, figures_of
from .sums import interval_sums, point_sums, quantile_sums, scaled_sums, seasonal_sums, truth_of

Level = Annotated[float, Field(gt=0, lt=1)]
ABOUT_EQUAL = 1e-6


class ForecastError(SumMetric):
    """Compute errors of forecasts in original units: over all values, by target, and by step of the horizon.

    Rules are those of 6.5. Everything is summed before it is divided, so a figure does not depend on batches; a value
    that was not measured is nowhere. What a batch does not give (season errors, scales, quantiles) has no figures.
    MASE is the mean of |error| / season error over all values of series that moved in training, and the share of those
    values stands beside it [reading: several series]. CRPS is twice the mean quantile loss, to which it comes as levels
    get denser.

    Args:
        main: the figure that comes first, and so stands for the metric.
        target_figures: the figures that each target has a row of, where there are several.
        step_figures: the figures that steps of the horizon have a row of, where there are several.
        steps: those steps, from 1; the first and each quarter of the horizon if none is named.
        interval: levels of the lower and the upper bound of the band; the outermost ones if not given.
    """

    higher_is_better = False

    def __init__(
        self,
        main: Figure = "mase",
        target_figures: tuple[Figure, ...] = ("mase", "mae", "rmse", "pinball", "coverage"),
        step_figures: tuple[Figure, ...] = ("mase", "mae"),
        steps: tuple[PositiveInt, ...] = (),
        interval: tuple[Level, Level] | None = None,
    ) -> None:
        super().__init__()
        if interval is not None and interval[0] >= interval[1]:
            raise UsageError(f"metric forecast-error: the interval {interval} is none", do="give the lower level first")
        self.main: Figure = main
        self.target_figures, self.step_figures = target_figures, step_figures
        self.steps, self.interval = steps, interval
        self._names: tuple[str, ...] | None = None
        self._levels: tuple[float, ...] = ()

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
        """
        if forecast.shape != truth.shape or truth.ndim != 3:
            raise ValueError(f"forecast {list(forecast.shape)} and truth {list(truth.shape)} are to be [B, H, T]")
        if target_names is not None:
            self._names = named(truth.shape[-1], target_names)
        facts, forecast = truth_of(truth, truth_mask), forecast.double()
        self.add(**point_sums(forecast, facts))
        if season_error is not None:
            self.add(**seasonal_sums(forecast, facts, season_error))
        if scale is not None:
            self.add(**scaled_sums(forecast, facts, scale))
        if forecast_quantiles is not None and quantile_levels is not None:
            quantiles, levels = forecast_quantiles.double(), self._known(quantile_levels)
            self.add(**quantile_sums(quantiles, facts, levels))
            if (band := self._band(levels)) is not None:
                low, high = band
                miss_rate = 1 - (levels[high] - levels[low])
                self.add(**interval_sums(quantiles[..., low], quantiles[..., high], facts, miss_rate))

    def compute(self) -> dict[str, float]:
        """Return the main figure, every figure over all values, then FIGURE/TARGET and FIGURE/step-H."""
        overall = self.figures()
        results = {self.main: overall.pop(self.main, float("nan")), **overall}
        steps, targets = self.sums["count"].shape if self.sums else (1, 1)
        for place, name in enumerate(named(targets, self._names)) if targets > 1 else ():
            found = self.figures(target=place)
            results |= {f"{figure}/{name}": found[figure] for figure in self.target_figures if figure in found}
        for step in self._shown(steps) if steps > 1 else ():
            found = self.figures(step=step)
            results |= {f"{figure}/step-{step}": found[figure] for figure in self.step_figures if figure in found}
        return results

    def figures(self, step: int | None = None, target: int | None = None) -> dict[str, float]:
        """Return every figure over all values, of one step of the horizon, of one target, or of both.

        Args:
            step: from 1; all together if not given.
            target: from 0; all together if not given.
        """
        steps = slice(None) if step is None else slice(step - 1, step)
        targets = slice(None) if target is None else slice(target, target + 1)
        return figures_of({name: float(amount[steps, targets].sum()) for name, amount in self.sums.items()})

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._names, self._levels = None, ()

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

"""From scaled outputs of a model to forecasts in original units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from trainkit.contracts import Batch, Outputs

from .naive import persistence, seasonal_naive


def unscaled(values: Tensor, batch: Batch) -> Tensor:
    """Return values [B, L, T] or [B, L, T, Q] in original units."""
    loc, scale = batch["loc"][:, None], batch["scale"][:, None]
    if values.ndim == 4:
        loc, scale = loc[..., None], scale[..., None]
    return values.float() * scale + loc


def median_of(outputs: Outputs) -> Tensor:
    """Return the point forecast [B, H, T]: the level nearest to the median, or the point itself."""
    if "point" in outputs:
        point: Tensor = outputs["point"]
        return point
    levels, quantiles = outputs["quantile_levels"], outputs["quantiles"]
    middle: Tensor = quantiles.sort(-1).values.index_select(-1, (levels - 0.5).abs().argmin()[None]).squeeze(-1)
    return middle


def truth_of(batch: Batch) -> dict[str, Tensor]:
    """Return what was measured over the horizon, and the last value measured before it."""
    last = persistence(batch["past_values"], batch["past_observed_mask"], 1)
    return {
        "truth": unscaled(batch["future_values"], batch),
        "truth_mask": batch["future_observed_mask"],
        "last_value": unscaled(last, batch)[:, 0],
    }


def predictions_of(batch: Batch, outputs: Outputs) -> dict[str, Any]:
    """Return forecast, quantiles where there are some, and truth, in original units."""
    found: dict[str, Any] = {"forecast": unscaled(median_of(outputs), batch), **truth_of(batch)}
    if "quantiles" in outputs:
        found["forecast_quantiles"] = unscaled(outputs["quantiles"].sort(-1).values, batch)
    return found


def baselines_of(season: int) -> Mapping[str, Callable[[Batch], Mapping[str, Any]]]:
    """Return the forecasts that need no training, by name."""

    def last_value(batch: Batch) -> dict[str, Any]:
        horizon = batch["future_values"].shape[1]
        values = persistence(batch["past_values"], batch["past_observed_mask"], horizon)
        return {"forecast": unscaled(values, batch), **truth_of(batch)}

    def last_season(batch: Batch) -> dict[str, Any]:
        horizon = batch["future_values"].shape[1]
        values = seasonal_naive(batch["past_values"], batch["past_observed_mask"], horizon, season)
        return {"forecast": unscaled(values, batch), **truth_of(batch)}

    found = {"persistence": last_value}
    # With a season of one step both are the same.
    return found | ({"seasonal-naive": last_season} if season > 1 else {})

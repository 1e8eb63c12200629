"""From scaled outputs of a model to forecasts in original units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from trainkit.contracts import Batch, Outputs

from .naive import persistence, seasonal_naive

Bounded = Callable[[Tensor, Batch], Tensor]

# No forecast is e^30 scales away from the median: beyond it sinh would leave the range of a float.
FARTHEST = 30.0


def unscaled(values: Tensor, batch: Batch) -> Tensor:
    """Return values [B, L, T] or [B, L, T, Q] in original units."""
    shape = (len(values), 1, values.shape[2], *(1,) * (values.ndim - 3))
    loc, scale = batch["loc"].view(shape), batch["scale"].view(shape)
    values = values.float()
    if "asinh_mask" in batch:
        bent = values.clamp(-FARTHEST, FARTHEST).sinh()
        values = torch.where(batch["asinh_mask"].reshape(shape), bent, values)
    original: Tensor = values * scale + loc
    return original


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


def unbounded(values: Tensor, batch: Batch) -> Tensor:
    """Return values as they are."""
    del batch
    return values


def predictions_of(batch: Batch, outputs: Outputs, bounded: Bounded = unbounded) -> dict[str, Any]:
    """Return forecast, quantiles where there are some, and truth, in original units.

    Args:
        batch: of windows.
        outputs: of the model.
        bounded: what forecasts [B, H, T] and their quantiles [B, H, T, Q] are brought to.
    """
    forecast = bounded(unscaled(median_of(outputs), batch), batch)
    found: dict[str, Any] = {"forecast": forecast, **truth_of(batch)}
    if "quantiles" in outputs:
        found["forecast_quantiles"] = bounded(unscaled(outputs["quantiles"].sort(-1).values, batch), batch)
    return found


def baselines_of(season: int, levels: Sequence[float]) -> Mapping[str, Callable[[Batch], Mapping[str, Any]]]:
    """Return the forecasts that need no training, by name.

    Where the model forecasts quantiles, those of a baseline are all its one value, so that the figures of quantiles
    stand beside each other: its CRPS is then its mean absolute error.

    Args:
        season: steps of a season.
        levels: of the model's quantiles.
    """

    def told(values: Tensor, batch: Batch) -> dict[str, Any]:
        forecast = unscaled(values, batch)
        found: dict[str, Any] = {"forecast": forecast, **truth_of(batch)}
        if levels:
            found["forecast_quantiles"] = forecast[..., None].expand(*forecast.shape, len(levels))
            found["quantile_levels"] = forecast.new_tensor(levels)
        return found

    def last_value(batch: Batch) -> dict[str, Any]:
        past, mask = batch["past_values"], batch["past_observed_mask"]
        return told(persistence(past, mask, batch["future_values"].shape[1]), batch)

    def last_season(batch: Batch) -> dict[str, Any]:
        past, mask = batch["past_values"], batch["past_observed_mask"]
        return told(seasonal_naive(past, mask, batch["future_values"].shape[1], season), batch)

    # With a season of one step both are the same.
    return {"persistence": last_value} | ({"seasonal-naive": last_season} if season > 1 else {})

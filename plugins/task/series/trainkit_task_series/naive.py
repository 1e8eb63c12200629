"""Forecasts that need no training: what every model has to beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def carried_forward(values: Tensor, observed: Tensor | None) -> Tensor:
    """Return values [B, L, T] with each missing one replaced by the last measured one before it.

    What is missing before the first measured value takes that one; a row without any is 0.

    Args:
        values: what stands at a missing place is not looked at.
        observed: [B, L, T] bool, True where measured; None for everywhere.
    """
    if observed is None:
        return values
    place = torch.arange(values.shape[1], device=values.device)[None, :, None]
    last = torch.where(observed, place, -1).cummax(dim=1).values
    first = observed.to(torch.uint8).argmax(dim=1, keepdim=True)
    return torch.where(observed, values, 0.0).gather(1, torch.where(last < 0, first, last))


def persistence(past_values: Tensor, observed: Tensor | None, horizon: int) -> Tensor:
    """Return the last measured value of the past [B, C, T] at each step of the horizon, [B, horizon, T]."""
    return carried_forward(past_values, observed)[:, -1:].expand(-1, horizon, -1)


def seasonal_naive(past_values: Tensor, observed: Tensor | None, horizon: int, season: int) -> Tensor:
    """Return for each step of the horizon the value of the last season of the past at the same phase, [B, horizon, T].

    Where it is missing, an earlier season's takes its place, and where the phase was never measured, the last value.

    Args:
        past_values: [B, C, T], C at least a season.
        observed: [B, C, T] bool; None for everywhere.
        horizon: steps.
        season: steps of a season.
    """
    batch, context, targets = past_values.shape
    seasons = context // season
    if not seasons:
        raise ValueError(f"a season of {season} steps does not fit into a past of {context}")
    recent = past_values[:, context - seasons * season :]
    if observed is not None:
        there = observed[:, context - seasons * season :].reshape(batch, seasons, -1)
        by_phase = carried_forward(recent.reshape(batch, seasons, -1), there)[:, -1]
        ever = there.any(dim=1).view(batch, season, targets)
        last = torch.where(ever, by_phase.view(batch, season, targets), persistence(past_values, observed, season))
    else:
        last = recent[:, -season:]
    phases = torch.arange(horizon, device=past_values.device) % season
    return last[:, phases]


class Persistence(nn.Module):
    """Forecast the last measured value. It has no parameters.

    Args:
        horizon: steps that are forecast.
    """

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, past_values: Tensor, past_observed_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return `point` [B, H, T] of past_values [B, C, T]."""
        return {"point": persistence(past_values, past_observed_mask, self.horizon)}


class SeasonalNaive(nn.Module):
    """Forecast the last season again. It has no parameters.

    Args:
        horizon: steps that are forecast.
        season: steps of a season; no longer than the past.
    """

    def __init__(self, horizon: int, season: int) -> None:
        super().__init__()
        self.horizon, self.season = horizon, season

    def forward(self, past_values: Tensor, past_observed_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return `point` [B, H, T] of past_values [B, C, T]."""
        return {"point": seasonal_naive(past_values, past_observed_mask, self.horizon, self.season)}

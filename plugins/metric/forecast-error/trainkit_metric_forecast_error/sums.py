"""What a batch of forecasts adds to sums: for each step of the horizon and target, and for each sample and target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Total:
    """Hold a sum of amounts [B, H, T]: over the samples [H, T], and over the steps [B, T]."""

    by_step: Tensor
    by_sample: Tensor

    @classmethod
    def of(cls, amounts: Tensor) -> Total:
        """Return both sums of amounts [B, H, T]."""
        return cls(amounts.sum(0), amounts.sum(1))


Sums = dict[str, Total]


@dataclass(frozen=True)
class Truth:
    """Hold what was measured: [B, H, T] values, 0 where nothing was measured, and where something was."""

    values: Tensor
    measured: Tensor

    def total(self, amounts: Tensor) -> Total:
        """Return the sums of amounts [B, H, T] over what was measured."""
        return Total.of(torch.where(self.measured, amounts, 0.0))


def truth_of(truth: Tensor, mask: Tensor | None) -> Truth:
    """Return the truth [B, H, T] in float64; without a mask, what is NaN was not measured."""
    measured = ~truth.isnan() if mask is None else mask
    return Truth(torch.where(measured, truth, 0.0).double(), measured)


def point_sums(forecast: Tensor, truth: Truth) -> Sums:
    """Return the sums behind MAE, RMSE, sMAPE, MAPE and WAPE.

    Args:
        forecast: [B, H, T] in float64.
        truth: the measured values.
    """
    errors = forecast - truth.values
    size, level = errors.abs(), truth.values.abs()
    both, moved = level + forecast.abs(), truth.measured & (level > 0)
    return {
        "count": Total.of(truth.measured.double()),
        "error": truth.total(size),
        "square": truth.total(errors.square()),
        "level": truth.total(level),
        "symmetric": truth.total(2 * size / both.masked_fill(both == 0, 1.0)),
        "relative": Total.of(torch.where(moved, size / level.where(moved, 1.0), 0.0)),
        "relative_count": Total.of(moved.double()),
    }


def seasonal_sums(forecast: Tensor, truth: Truth, season_error: Tensor) -> Sums:
    """Return the sums behind MASE; a series that did not move in training has no unit to measure errors in.

    Args:
        forecast: [B, H, T] in float64.
        truth: the measured values.
        season_error: [B, T] mean |y_t - y_{t-m}| of the training part, in original units.
    """
    unit = season_error.double().unsqueeze(1)
    there = truth.measured & (unit > 0) & unit.isfinite()
    scaled = (forecast - truth.values).abs() / torch.where(there, unit, 1.0)
    return {"seasonal": Total.of(torch.where(there, scaled, 0.0)), "seasonal_count": Total.of(there.double())}


def scaled_sums(forecast: Tensor, truth: Truth, scale: Tensor) -> Sums:
    """Return the sums of errors and of their squares in the units the model was trained in.

    Args:
        forecast: [B, H, T] in float64.
        truth: the measured values.
        scale: [B, T], by which values were divided.
    """
    errors = (forecast - truth.values) / scale.double().unsqueeze(1)
    return {"scaled": truth.total(errors.abs()), "scaled_square": truth.total(errors.square())}


def quantile_sums(quantiles: Tensor, truth: Truth, levels: Sequence[float]) -> Sums:
    """Return the sums behind pinball and q-risk, by level, and of neighbours out of order.

    Args:
        quantiles: [B, H, T, Q] in float64.
        truth: the measured values.
        levels: Q of them, rising.
    """
    sums = {}
    for level, forecast in zip(levels, quantiles.unbind(-1), strict=True):
        errors = truth.values - forecast
        sums[pinball(level)] = truth.total(torch.maximum(level * errors, (level - 1) * errors))
    return {
        **sums,
        "crossed": truth.total((quantiles.diff(dim=-1) < 0).double().sum(-1)),
        "quantile_count": Total.of(truth.measured.double()),
        "quantile_level": truth.total(truth.values.abs()),
    }


def interval_sums(low: Tensor, high: Tensor, truth: Truth, miss_rate: float) -> Sums:
    """Return the sums behind coverage, width and the Winkler score.

    Args:
        low: [B, H, T] in float64.
        high: shaped like `low`.
        truth: the measured values.
        miss_rate: a, the share of values that should lie outside.

    Source: Winkler 1972: width + 2/a times what the truth is outside by.
    """
    values = truth.values
    outside = (low - values).clamp(min=0) + (values - high).clamp(min=0)
    return {
        "covered": truth.total(((low <= values) & (values <= high)).double()),
        "width": truth.total(high - low),
        "winkler": truth.total(high - low + 2 / miss_rate * outside),
    }


def pinball(level: float) -> str:
    """Return the name of the sum of the quantile loss of a level."""
    return f"pinball {level:g}"


def by_series(sums: Sums, series: Tensor, count: int) -> Tensor:
    """Return what each series adds to the sums, [count, T, K], K in the order of the sums.

    Args:
        sums: K of a batch.
        series: [B] number of each sample's series.
        count: how many series there are.
    """
    samples = torch.stack([total.by_sample for total in sums.values()], dim=-1)
    return samples.new_zeros(count, *samples.shape[1:]).index_add_(0, series, samples)

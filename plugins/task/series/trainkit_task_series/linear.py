"""Linear forecasters, one matrix from past to horizon: NLinear and DLinear [paper 2205.13504]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .naive import carried_forward

# Steps of the moving average that makes DLinear's trend.
KERNEL = 25


def trend_of(values: Tensor, kernel: int = KERNEL) -> Tensor:
    """Return the centred moving average of values [B, L, T], the ends continued by the first and the last value.

    Args:
        values: at least one step.
        kernel: steps of the average, odd.
    """
    padded = F.pad(values.transpose(1, 2), (kernel // 2, kernel // 2), mode="replicate")
    return F.avg_pool1d(padded, kernel, stride=1).transpose(1, 2)


class TimeLinear(nn.Module):
    """Map the past of each target to its horizon: [B, C, T] to [B, H, T, Q].

    Args:
        context: C.
        horizon: H.
        outputs: Q.
        targets: T, for a matrix of each target; None for one that all share.
    """

    def __init__(self, context: int, horizon: int, outputs: int, targets: int | None) -> None:
        super().__init__()
        self.horizon = horizon
        sets, bound = targets or 1, context**-0.5
        # As a Linear begins.
        self.weight = nn.Parameter(torch.empty(sets, context, horizon * outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(sets, 1, horizon * outputs).uniform_(-bound, bound))

    def forward(self, past: Tensor) -> Tensor:
        if len(self.weight) == 1:
            out = past.transpose(1, 2) @ self.weight[0] + self.bias[0]
        else:
            out = torch.baddbmm(self.bias, past.permute(2, 0, 1), self.weight).transpose(0, 1)
        by_step: Tensor = out.unflatten(-1, (self.horizon, -1)).transpose(1, 2)
        return by_step


class LinearForecaster(nn.Module):
    """Forecast each target from its own past by one matrix (NLinear) or by two, of trend and rest (DLinear).

    NLinear takes the last value off and adds it again: what is learned is the change. A missing value counts as the
    last measured one before it.  [reading]

    Args:
        context: steps of the past, C.
        horizon: steps that are forecast, H.
        targets: T.
        decompose: whether to map trend and rest apart (DLinear) rather than the change since the last value (NLinear).
        individual: whether each target has matrices of its own; as published all share them by default.
        quantiles: levels, ascending, to forecast instead of a point.
    """

    def __init__(
        self,
        context: int,
        horizon: int,
        targets: int = 1,
        decompose: bool = False,
        individual: bool = False,
        quantiles: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.context, self.targets = context, targets
        sizes = (context, horizon, max(1, len(quantiles)), targets if individual else None)
        self.rest, self.trend = TimeLinear(*sizes), TimeLinear(*sizes) if decompose else None
        self.quantile_levels: Tensor | None
        levels = torch.tensor(tuple(quantiles)) if quantiles else None
        self.register_buffer("quantile_levels", levels, persistent=False)

    def forward(self, past_values: Tensor, past_observed_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return `point` [B, H, T], or `quantiles` [B, H, T, Q] and `quantile_levels` [Q].

        Args:
            past_values: [B, C, T] scaled.
            past_observed_mask: [B, C, T] bool, True where a value was measured; None for everywhere.
        """
        if past_values.shape[1:] != (self.context, self.targets):
            raise ValueError(
                f"the model was built for {self.context} steps of {self.targets} targets and is given past_values of "
                f"shape {tuple(past_values.shape)}"
            )
        past = carried_forward(past_values, past_observed_mask)
        if self.trend is None:
            last = past[:, -1:]
            out = self.rest(past - last) + last[..., None]
        else:
            trend = trend_of(past)
            out = self.rest(past - trend) + self.trend(trend)
        if self.quantile_levels is None:
            return {"point": out[..., 0]}
        return {
            "quantiles": out if self.training else out.sort(-1).values,
            "quantile_levels": self.quantile_levels,
        }

"""Mean squared error of point forecasts."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import NonNegativeFloat
from torch import Tensor, nn
from trainkit import LossOutput
from trainkit.targets import filled, over_targets


def squared_error(forecast: Tensor, truth: Tensor) -> Tensor:
    """Return (f - y)^2 of every value: [...]."""
    return (forecast - truth).square()


class MeanSquaredError(nn.Module):
    """Measure the mean squared error of point forecasts.

    The mean runs over samples, steps of the horizon and targets together; values that were not measured neither cost
    nor count. With several targets each is a part, and a term that a loss around this one can weigh.

    Args:
        target_weights: weight of a target by its name, or by its number from 0 where it has none; 1 for the others.
    """

    def __init__(self, target_weights: dict[str, NonNegativeFloat] | None = None) -> None:
        super().__init__()
        self.target_weights = dict(target_weights or {})

    def forward(
        self,
        point: Tensor,
        future_values: Tensor,
        future_observed_mask: Tensor | None = None,
        target_names: Sequence[str] | None = None,
    ) -> LossOutput:
        """Return the loss of point forecasts [B, H, T] for future_values [B, H, T]; without T for one target."""
        forecast, truth = filled(point, future_values, future_observed_mask)
        return over_targets(squared_error(forecast, truth), future_observed_mask, target_names, self.target_weights)

    def extra_repr(self) -> str:
        return f"target_weights={self.target_weights}" if self.target_weights else ""

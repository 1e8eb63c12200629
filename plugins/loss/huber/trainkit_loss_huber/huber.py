"""Huber loss of point forecasts: squares of small errors, the size of large ones."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from trainkit import LossOutput
from trainkit.targets import filled, over_targets


def huber_loss(forecast: Tensor, truth: Tensor, delta: float = 1.0) -> Tensor:
    """Return e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2), of every value: [...].

    Args:
        forecast: [...].
        truth: [...].
        delta: where squares give way to lines.

    Source: Huber 1964, Robust estimation of a location parameter [paper].
    """
    size = (forecast - truth).abs()
    near = size.clamp(max=delta)
    return near * (size - near / 2)


class Huber(nn.Module):
    """Measure errors of point forecasts such that outliers pull with a bounded force.

    The mean runs over samples, steps of the horizon and targets together; values that were not measured neither cost
    nor count. With several targets each is a part, and a term that a loss around this one can weigh.

    Args:
        delta: error, in scaled units, from which on the loss grows in proportion to the error.
        target_weights: weight of a target by its name, or by its number from 0 where it has none; 1 for the others.

    Source: Huber 1964, Robust estimation of a location parameter [paper].
    """

    def __init__(self, delta: PositiveFloat = 1.0, target_weights: dict[str, NonNegativeFloat] | None = None) -> None:
        super().__init__()
        self.delta = delta
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
        losses = huber_loss(forecast, truth, self.delta)
        return over_targets(losses, future_observed_mask, target_names, self.target_weights)

    def extra_repr(self) -> str:
        return f"delta={self.delta}"

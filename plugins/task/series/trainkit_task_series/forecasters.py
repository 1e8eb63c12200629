"""The models of the task, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn
from trainkit.errors import UsageError

from .learned import Learned
from .linear import LinearForecaster
from .tft import TemporalFusionTransformer, Variables

ModelName = Literal["tft", "nlinear", "dlinear"]


@dataclass(frozen=True)
class Forecaster:
    """Hold which model forecasts, and its size.

    Args:
        model: its name.
        context: steps of the past.
        horizon: steps that are forecast.
        quantiles: levels; none for a point forecast.
        hidden: features of a position of the TFT.
        heads: its attention heads.
        layers: its LSTM layers.
        dropout: its dropout.
        instance_norm: whether it forecasts each window about its own level and spread.
        individual: whether each target has a linear map of its own.
        season_skip: whether it sees the last season over the horizon, and may repeat it.
    """

    model: ModelName
    context: int
    horizon: int
    quantiles: tuple[float, ...]
    hidden: int
    heads: int
    layers: int
    dropout: float
    instance_norm: bool
    individual: bool
    season_skip: bool

    def __post_init__(self) -> None:
        if sorted(set(self.quantiles)) != list(self.quantiles) or not all(0 < level < 1 for level in self.quantiles):
            raise UsageError(f"task.quantiles = {list(self.quantiles)} must ascend between 0 and 1")
        if self.model == "tft" and not self.quantiles:
            raise UsageError(
                "task.model = tft forecasts quantiles, and task.quantiles is empty",
                do="--set task.quantiles=[0.5] for the median alone, or take nlinear or dlinear",
            )
        if self.hidden % self.heads or self.hidden < 2:
            raise UsageError(f"task.hidden = {self.hidden} must be a multiple of task.heads = {self.heads}")

    def build(self, learned: Learned) -> nn.Module:
        """Return a fresh model for what was learned."""
        layout = learned.layout
        if self.model == "tft":
            variables = Variables(
                layout.targets, layout.observed, layout.known, learned.static_categories, learned.static_reals
            )
            return TemporalFusionTransformer(
                variables,
                self.horizon,
                self.quantiles,
                self.hidden,
                self.heads,
                self.dropout,
                self.layers,
                self.instance_norm,
                learned.season if self.season_skip else None,
            )
        return LinearForecaster(
            self.context, self.horizon, layout.targets, self.model == "dlinear", self.individual, self.quantiles
        )

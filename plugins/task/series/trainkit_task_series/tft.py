"""The Temporal Fusion Transformer, for several targets at once [paper 1912.09363]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import InterpretableAttention
from .gates import GatedResidual, GatedSkip
from .naive import seasonal_naive
from .selection import VariableSelection
from .statics import RealEmbedding, Statics
from .window import level_and_spread

QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)


@dataclass(frozen=True)
class Variables:
    """Count the inputs of a forecasting model.

    Args:
        targets: what is forecast; its past is an input.
        covariates: inputs known over the past alone.
        known: inputs known over past and horizon, as calendar features.
        static_categories: number of values of each categorical static.
        static_reals: number of real statics.
    """

    targets: int = 1
    covariates: int = 0
    known: int = 0
    static_categories: Sequence[int] = ()
    static_reals: int = 0


class TemporalFusionTransformer(nn.Module):
    """Forecast quantiles of every target at every step of a horizon, from the past and from what is known ahead.

    Besides the inputs it is given, it knows how far a step is from the first of the horizon. A missing past value
    takes no part: its weight in the selection of variables is 0.  [reading]

    Args:
        variables: the numbers of inputs.
        horizon: steps that are forecast.
        quantiles: levels, ascending.
        width: features, d; a multiple of the heads.
        heads: attention heads.
        dropout: share of a gate's input that is dropped in training; as in the paper the last gate drops nothing.
        lstm_layers: layers of the two LSTMs.
        instance_norm: whether each window's targets are forecast about their own level and spread, for series whose
            level moves away from where it was in training.
        season_skip: steps of a season whose last values are inputs over the horizon, too, and are added to the forecast
            as far as a gate of each target and level lets them: for what happens at the same time each season.
    """

    def __init__(
        self,
        variables: Variables,
        horizon: int,
        quantiles: Sequence[float] = QUANTILES,
        width: int = 32,
        heads: int = 8,
        dropout: float = 0.15,
        lstm_layers: int = 1,
        instance_norm: bool = False,
        season_skip: int | None = None,
    ) -> None:
        super().__init__()
        if width % heads or width < 2:
            raise ValueError(f"width {width} is not a multiple of {heads} heads, and at least 2")
        if sorted(set(quantiles)) != list(quantiles) or not all(0 < q < 1 for q in quantiles):
            raise ValueError(f"quantiles {tuple(quantiles)} do not ascend between 0 and 1")
        self.variables, self.horizon, self.lstm_layers = variables, horizon, lstm_layers
        self.instance_norm, self.season_skip = instance_norm, season_skip
        past = variables.targets + variables.covariates + variables.known + 1
        lags = variables.targets if season_skip else 0
        future = lags + variables.known + 1
        self.quantile_levels: Tensor
        self.register_buffer("quantile_levels", torch.tensor(tuple(quantiles)), persistent=False)
        self.statics = Statics(variables.static_categories, variables.static_reals, width, dropout)
        # A known input and the distance have one embedding, over past and horizon alike: they stand last in the past.
        self.embedding = RealEmbedding(past, width)
        self.season_embedding = RealEmbedding(lags, width) if lags else None
        self.past_selection = VariableSelection(past, width, dropout, context=True)
        self.future_selection = VariableSelection(future, width, dropout, context=True)
        between = dropout if lstm_layers > 1 else 0.0
        self.encoder = nn.LSTM(width, width, lstm_layers, dropout=between)
        self.decoder = nn.LSTM(width, width, lstm_layers, dropout=between)
        self.local_skip = GatedSkip(width, dropout)
        self.enrichment = GatedResidual(width, width, width, dropout, context=width)
        self.attention = InterpretableAttention(width, heads)
        self.attention_skip = GatedSkip(width, dropout)
        self.feedforward = GatedResidual(width, width, width, dropout)
        self.output_skip = GatedSkip(width, 0.0)
        # One Linear(d, Q) for each target, in one.
        self.head = nn.Linear(width, variables.targets * len(quantiles))
        self.season_gate = nn.Linear(width, variables.targets * len(quantiles)) if lags else None

    def forward(
        self,
        past_values: Tensor,
        past_observed_mask: Tensor | None = None,
        past_covariates: Tensor | None = None,
        past_time_features: Tensor | None = None,
        future_time_features: Tensor | None = None,
        static_categorical_features: Tensor | None = None,
        static_real_features: Tensor | None = None,
        output_attentions: bool = False,
    ) -> dict[str, Tensor]:
        """Return `quantiles` [B, H, T, Q] and `quantile_levels` [Q]; outside training the quantiles ascend.

        With C steps of the past:

        Args:
            past_values: [B, C, T] scaled.
            past_observed_mask: [B, C, T] bool, True where a value was measured; None for everywhere.
            past_covariates: [B, C, O].
            past_time_features: [B, C, K].
            future_time_features: [B, H, K].
            static_categorical_features: [B, S] numbers of the values.
            static_real_features: [B, R].
            output_attentions: whether to return also `attentions` [B, H, C + H], the mean over heads, and the weights
                of the variables: `past_weights` [B, C, T + O + K + 1], in this order, the distance last,
                `future_weights` [B, H, K + 1], the last season's T values first where there is a `season_skip`, and
                `static_weights` [B, S + R].
        """
        batch, context, _ = past_values.shape
        level = spread = None
        if self.instance_norm:
            level, spread = level_and_spread(past_values, past_observed_mask)
            past_values = (past_values - level) / spread
        past = [x for x in (past_values, past_covariates, past_time_features) if x is not None]
        season = self._last_season(past_values, past_observed_mask)
        future = [x for x in (season, future_time_features) if x is not None]
        self._check(past, future, static_categorical_features, static_real_features)
        contexts, static_weights = self.statics(batch, static_categorical_features, static_real_features)
        select, enrich, hidden, cell = contexts
        distance = torch.arange(-context, self.horizon, device=past_values.device, dtype=past_values.dtype) / context
        past_lines, missing = lines_of(past, distance[:context], past_observed_mask)
        future_lines, _ = lines_of(future, distance[context:], None, batch)
        past_embedding, future_embedding = self._embeddings()
        seen, past_weights = self.past_selection.select_reals(past_lines, *past_embedding, select, missing)
        known, future_weights = self.future_selection.select_reals(future_lines, *future_embedding, select)
        inputs = torch.cat([seen, known]).view(context + self.horizon, batch, -1)
        local = self.local_skip(self._recur(inputs, context, hidden, cell), inputs)
        enriched = self.enrichment(local, enrich)
        mixed, attentions = self.attention(enriched, self.horizon, output_attentions)
        x = self.feedforward(self.attention_skip(mixed, enriched[context:]))
        quantiles = self._quantiles(self.output_skip(x, local[context:]), season)
        if level is not None and spread is not None:
            quantiles = quantiles * spread[..., None] + level[..., None]
        out = {"quantiles": quantiles if self.training else quantiles.sort(-1).values}
        out["quantile_levels"] = self.quantile_levels
        if attentions is not None:
            out |= {
                "attentions": attentions,
                "past_weights": past_weights.view(context, batch, -1).transpose(0, 1),
                "future_weights": future_weights.view(self.horizon, batch, -1).transpose(0, 1),
                "static_weights": static_weights,
            }
        return out

    def _last_season(self, past_values: Tensor, observed: Tensor | None) -> Tensor | None:
        if not self.season_skip:
            return None
        return seasonal_naive(past_values, observed, self.horizon, self.season_skip)

    def _embeddings(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return scale and shift of the variables of the past, and of those of the horizon."""
        past = (self.embedding.weight, self.embedding.bias)
        known = slice(-1 - self.variables.known, None)
        scale, shift = past[0][known], past[1][known]
        if self.season_embedding is not None:
            scale = torch.cat([self.season_embedding.weight, scale])
            shift = torch.cat([self.season_embedding.bias, shift])
        return past, (scale, shift)

    def _quantiles(self, x: Tensor, season: Tensor | None) -> Tensor:
        """Return [B, H, T, Q] of features [H, B, d] and the last season [B, H, T]."""
        targets = (self.variables.targets, -1)
        quantiles: Tensor = self.head(x).unflatten(-1, targets).transpose(0, 1)
        if season is None or self.season_gate is None:
            return quantiles
        share: Tensor = self.season_gate(x).sigmoid().unflatten(-1, targets).transpose(0, 1)
        return quantiles + share * season[..., None]

    def _recur(self, inputs: Tensor, context: int, hidden: Tensor, cell: Tensor) -> Tensor:
        """Return what the LSTMs answer [C + H, B, d], the decoder's going on where the encoder's ends."""
        device = inputs.device.type
        # A CPU's LSTM knows no fp16.
        with torch.autocast(device, enabled=device != "cpu" and torch.is_autocast_enabled(device)):
            if device == "cpu":
                inputs, hidden, cell = (x.to(self.head.weight.dtype) for x in (inputs, hidden, cell))
            start = tuple(state.expand(self.lstm_layers, -1, -1).contiguous() for state in (hidden, cell))
            encoded, state = self.encoder(inputs[:context], start)
            decoded, _ = self.decoder(inputs[context:], state)
        return torch.cat([encoded, decoded])

    def _check(
        self, past: Sequence[Tensor], future: Sequence[Tensor], categories: Tensor | None, reals: Tensor | None
    ) -> None:
        counts = self.variables
        lags = counts.targets if self.season_skip else 0
        wanted = {
            "past inputs": counts.targets + counts.covariates + counts.known,
            "future inputs": lags + counts.known,
            "categorical statics": len(counts.static_categories),
            "real statics": counts.static_reals,
        }
        given = [sum(x.shape[-1] for x in part) for part in (past, future)]
        given += [0 if x is None else x.shape[-1] for x in (categories, reals)]
        for (name, count), found in zip(wanted.items(), given, strict=True):
            if count != found:
                # The last season is made here, not given.
                own = lags if name == "future inputs" else 0
                raise ValueError(f"the model was built for {count - own} {name} and is given {found - own}")
        if future and future[-1].shape[1] != self.horizon:
            raise ValueError(f"the model forecasts {self.horizon} steps and is given {future[-1].shape[1]} known ahead")


def lines_of(
    parts: Sequence[Tensor], distance: Tensor, observed: Tensor | None, batch: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return variables as time-major lines [V, 2, L B], their values and ones, and which of them are missing.

    Args:
        parts: [B, L, v] each.
        distance: [L], the last variable.
        observed: [B, L, T] bool, of the first T variables; None where all were.
        batch: B, where there are no parts.

    Returns:
        the lines, both 0 where a value is missing; and [L B, V] bool, True there, or None.
    """
    batch = parts[0].shape[0] if batch is None else batch
    values = [part.permute(2, 1, 0) for part in parts]
    values.append(distance[None, :, None].expand(1, -1, batch))
    rows = torch.cat(values)
    lines = torch.stack([rows, torch.ones_like(rows)], dim=1)
    if observed is None:
        return lines.flatten(2), None
    mask = observed.permute(2, 1, 0)
    there = lines[: len(mask)]
    # Not a product: what stands at a missing place may be no number.
    lines = torch.cat([torch.where(mask[:, None], there, 0.0), lines[len(mask) :]])
    missing = torch.zeros(len(rows), *mask.shape[1:], dtype=torch.bool, device=rows.device)
    missing[: len(mask)] = ~mask
    return lines.flatten(2), missing.flatten(1).t()

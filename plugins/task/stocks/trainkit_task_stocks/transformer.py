"""The stock transformer: an encoder over bars, a head for prices and a head for actions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH, HEADS, LAYERS, FEEDFORWARD, HIDDEN, ACTIONS = 512, 16, 8, 2048, 256, 3


def places(length: int, width: int, device: torch.device) -> Tensor:
    """Return sine and cosine embeddings of the places 0 .. length - 1, [length, width] [paper 1706.03762]."""
    waves = 10000.0 ** (-torch.arange(0, width, 2, device=device) / width)
    angles = torch.arange(length, device=device)[:, None] * waves
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


def pooled(states: Tensor, padding: Tensor | None) -> Tensor:
    """Return the mean of states [B, L, d] over real positions, [B, d]; 0 where there is none.

    Args:
        states: one for each position.
        padding: [B, L] bool, True = ignore; None for no padding.
    """
    if padding is None:
        return states.mean(1)
    real = ~padding[..., None]
    return torch.where(real, states, 0.0).sum(1) / real.sum(1).clamp(min=1)


class StockTransformer(nn.Module):
    """Forecast the next bars, and whether to buy, hold or sell, from the last ones (algorithms 7.2).

    Args:
        features: features of a bar, F.
        horizon: bars that are forecast, H.
        targets: how many values of a bar are forecast, T; None for as many as there are features.
        dropout: share of features dropped in training.
        causal: whether a bar sees only itself and earlier ones; as all are past, it need not.
        width: features of a state, d; a multiple of the heads.
        heads: attention heads.
        layers: encoder blocks.
        feedforward: width inside of a block.
    """

    def __init__(
        self,
        features: int,
        horizon: int = 5,
        targets: int | None = None,
        dropout: float = 0.15,
        causal: bool = False,
        width: int = WIDTH,
        heads: int = HEADS,
        layers: int = LAYERS,
        feedforward: int = FEEDFORWARD,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.features, self.horizon, self.heads, self.causal = features, horizon, heads, causal
        self.recompute = False
        self.embed, self.norm, self.drop = nn.Linear(features, width), nn.LayerNorm(width), nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, feedforward, dropout, "gelu", batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.price_head, self.action_head = (
            nn.Sequential(nn.Linear(width, HIDDEN), nn.GELU(), nn.Dropout(dropout), nn.Linear(HIDDEN, outputs))
            for outputs in (horizon * (features if targets is None else targets), ACTIONS)
        )

    def gradient_checkpointing_enable(self) -> None:
        """Compute the inner results of each block again in the backward pass instead of keeping them."""
        self.recompute = True

    def forward(
        self,
        past_values: Tensor,
        past_observed_mask: Tensor | None = None,
        past_covariates: Tensor | None = None,
        past_time_features: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return `prices` [B, H, T], scaled, the same as `point`, and `actions` [B, 3].

        Actions are logits of buy, hold and sell at the next close. With C bars of the past, F their features in all:

        Args:
            past_values: [B, C, V] scaled.
            past_observed_mask: [B, C, V] bool; a bar without any measured value is padding. Elsewhere what is missing
                counts as 0. None where all is measured.
            past_covariates: [B, C, O].
            past_time_features: [B, C, K].
        """
        padding = None
        if past_observed_mask is not None:
            past_values = torch.where(past_observed_mask, past_values, 0.0)
            padding = ~past_observed_mask.any(-1)
        parts = [x for x in (past_values, past_covariates, past_time_features) if x is not None]
        bars = torch.cat(parts, dim=-1)
        if bars.shape[-1] != self.features:
            raise ValueError(f"the model was built for {self.features} features and is given {bars.shape[-1]}")
        if padding is not None:
            bars = torch.where(padding[..., None], 0.0, bars)
        x = self.embed(bars)
        x = self.drop(self.norm(x + places(x.shape[1], x.shape[2], x.device).to(x)))
        ahead, ignored = self._hidden(x, padding)
        for block in self.blocks:
            x = self._through(block, x, ahead, ignored)
        state = pooled(x, padding)
        prices = self.price_head(state).unflatten(1, (self.horizon, -1))
        return {"prices": prices, "point": prices, "actions": self.action_head(state)}

    def _hidden(self, x: Tensor, padding: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return which bars a bar does not see, [C, C] or [B * heads, C, C], and which none sees, [B, C].

        Attention to nothing would be no number: a sample of nothing but padding looks at it, and so does padding that
        comes first where no later bar may be seen. Pooling leaves its states out.
        """
        if not self.causal:
            return None, None if padding is None else padding & ~padding.all(1, keepdim=True)
        bars = x.shape[1]
        ahead = torch.ones(bars, bars, dtype=torch.bool, device=x.device).triu(1)
        if padding is None:
            return ahead, None
        hidden = (ahead | padding[:, None, :]) & ~torch.eye(bars, dtype=torch.bool, device=x.device)
        return hidden.repeat_interleave(self.heads, 0), None

    def _through(self, block: nn.Module, x: Tensor, ahead: Tensor | None, ignored: Tensor | None) -> Tensor:
        if not (self.recompute and torch.is_grad_enabled()):
            out: Tensor = block(x, ahead, ignored)
            return out
        # Imported where it is asked for: it brings PyTorch's compiler along.
        from torch.utils.checkpoint import checkpoint

        again: Tensor = checkpoint(block, x, ahead, ignored, use_reentrant=False)
        return again

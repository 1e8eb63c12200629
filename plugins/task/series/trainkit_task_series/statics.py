"""What is known of a series as a whole, and the contexts made of it [paper 1912.09363, 4.3]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .dropout import kept
from .gates import GatedResidual
from .selection import VariableSelection


class RealEmbedding(nn.Module):
    """Embed each of several real variables by a Linear(1, d) of its own."""

    def __init__(self, variables: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(variables, width).uniform_(-1, 1))
        self.bias = nn.Parameter(torch.zeros(variables, width))

    def forward(self, values: Tensor) -> Tensor:
        """Return [V, B, d] of values [B, V]."""
        return values.t()[:, :, None] * self.weight[:, None] + self.bias[:, None]


class Statics(nn.Module):
    """Select among the statics of a series, and make the contexts of selection, of enrichment and of the LSTM's start.

    In training a share of the categories counts as unseen, lest an unseen one be what chance made it.  [reading]

    Args:
        categories: number of values of each categorical static; the first one stands for all unseen ones.
        reals: number of real statics.
        width: features.
        dropout: share of the gates' inputs, and of categories, that is dropped in training.
    """

    def __init__(self, categories: Sequence[int], reals: int, width: int, dropout: float) -> None:
        super().__init__()
        self.width, self.variables, self.dropout = width, len(categories) + reals, dropout
        self.tables = nn.ModuleList(nn.Embedding(count, width) for count in categories)
        self.reals = RealEmbedding(reals, width) if reals else None
        self.selection = VariableSelection(self.variables, width, dropout, context=False) if self.variables else None
        self.select, self.enrich, self.hidden, self.cell = (
            GatedResidual(width, width, width, dropout) for _ in range(4)
        )

    def forward(
        self, batch: int, static_categorical_features: Tensor | None, static_real_features: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """Return the contexts c_s, c_e, c_h and c_c, each [B, d], and the weights of the statics [B, V].

        Args:
            batch: B; with no statics at all the contexts are those of a vector of zeros.
            static_categorical_features: [B, S] numbers of the values.
            static_real_features: [B, R].
        """
        parts = []
        if static_categorical_features is not None:
            columns = self._seen(static_categorical_features).unbind(1)
            parts.append(torch.stack([table(column) for table, column in zip(self.tables, columns, strict=True)]))
        if self.reals is not None and static_real_features is not None:
            parts.append(self.reals(static_real_features))
        if self.selection is None:
            chosen = self.select.enter.weight.new_zeros(batch, self.width)
            weights = chosen[:, :0]
        else:
            chosen, weights = self.selection(torch.cat(parts))
        return (self.select(chosen), self.enrich(chosen), self.hidden(chosen), self.cell(chosen)), weights

    def _seen(self, categories: Tensor) -> Tensor:
        if not (self.training and self.dropout):
            return categories
        return categories * kept(tuple(categories.shape), self.dropout, categories.device)

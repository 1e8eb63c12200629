"""Variable selection: which of the inputs matters, for each series at each time [paper 1912.09363, 4.2]."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .dropout import kept, share_kept
from .gates import GatedResidual
from .selection_blocks import VariableWeights, combined, combined_in_blocks


class VariableSelection(nn.Module):
    """Weigh variables by a softmax over a gated residual network of all of them, and add up one network of each.

    The networks of all variables are one batched product per layer.

    Args:
        variables: number of variables, V.
        width: features of an embedded variable, d.
        dropout: share of the gates' inputs that is dropped in training.
        context: whether the weights also depend on a context of the width d.
    """

    def __init__(self, variables: int, width: int, dropout: float, context: bool) -> None:
        super().__init__()
        self.variables, self.width, self.dropout = variables, width, dropout
        self.weigh = GatedResidual(variables * width, width, variables, dropout, width if context else None)

        def matrices() -> nn.Parameter:
            # Glorot, for each variable as if it had a Linear of its own.
            bound = math.sqrt(3 / width)
            return nn.Parameter(torch.empty(variables, width, width).uniform_(-bound, bound))

        def rows(value: float = 0.0) -> nn.Parameter:
            return nn.Parameter(torch.full((variables, width), value))

        self.enter_weight, self.enter_bias = matrices(), rows()
        self.middle_weight, self.middle_bias = matrices(), rows()
        self.value_weight, self.value_bias = matrices(), rows()
        self.gate_weight, self.gate_bias = matrices(), rows()
        self.norm_weight, self.norm_bias = rows(1.0), rows()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the selected features [N, d] and the weights [N, V] of embedded variables x [V, N, d].

        Args:
            x: embedded variables.
            context: [N, d].
        """
        flat = x.transpose(0, 1).flatten(1)
        weights = self.weigh(flat, context).softmax(-1)
        entered = torch.baddbmm(self.enter_bias[:, None], x, self.enter_weight)
        return combined(entered, x, weights, self._weights(), self._kept(x.shape[1], x.device)), weights

    def select_reals(
        self, lines: Tensor, scale: Tensor, shift: Tensor, context: Tensor | None = None, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return what `forward` would of x_j = scale_j v_j + shift_j, without ever making x.

        A network's first layer and its skip see v through a line in d dimensions, so both are lines in v themselves.

        Args:
            lines: [V, 2, N], the values v and ones; both 0 where the value is missing.
            scale: [V, d] weights of the embeddings.
            shift: [V, d] their biases.
            context: added to each row's logits, [..., B, d], where N = ... x B.
            hidden: [N, V] bool, True where a value is missing: its weight is 0. At least one of a row is not.
        """
        count = lines.shape[2]
        embedding = torch.stack([scale, shift], dim=1)
        entering = torch.bmm(embedding, self.enter_weight)
        entering = torch.stack([entering[:, 0], entering[:, 1] + self.enter_bias], dim=1)
        rows = lines.flatten(0, 1).t()
        assert self.weigh.skip is not None
        entered, skip = (self._folded(layer, embedding, rows) for layer in (self.weigh.enter, self.weigh.skip))
        if context is not None:
            entered = entered.view(-1, *context.shape[-2:])
        logits = self.weigh.finish(entered, skip.view(*entered.shape[:-1], -1), context).view(count, -1)
        if hidden is not None:
            logits = logits.masked_fill(hidden, -math.inf)
        weights = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, embedding.dtype))
        own = self._weights()
        if lines.requires_grad:
            values = lines.transpose(1, 2)
            selected = combined(values @ entering, values @ embedding, weights, own, self._kept(count, lines.device))
        else:
            selected = combined_in_blocks(lines, entering, embedding, weights, own, self._kept(count, lines.device))
        return selected, weights

    def _folded(self, layer: nn.Linear, embedding: Tensor, rows: Tensor) -> Tensor:
        """Return the layer of all embedded variables, from their lines [N, 2V]."""
        by_variable = layer.weight.view(-1, self.variables, self.width).permute(1, 2, 0)
        folded = torch.bmm(embedding, by_variable)
        return torch.addmm(layer.bias, rows, folded.flatten(0, 1))

    def _weights(self) -> VariableWeights:
        return VariableWeights(
            self.middle_weight, self.middle_bias, self.value_weight, self.value_bias, self.gate_weight, self.gate_bias,
            self.norm_weight, self.norm_bias,
        )  # fmt: skip

    def _kept(self, count: int, device: torch.device) -> tuple[Tensor, float] | None:
        if not (self.training and self.dropout):
            return None
        return kept((self.variables, count, self.width), self.dropout, device), share_kept(self.dropout)

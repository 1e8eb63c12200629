"""Prices and what to do about them: squared error of scaled prices, and cross-entropy of buy, hold and sell."""

from __future__ import annotations

from functools import partial

from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.nn import functional
from trainkit import LossOutput
from trainkit.contracts import IGNORED_LABEL
from trainkit.likelihood import widened
from trainkit.targets import filled


def mean_by_sample(losses: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Return each sample's mean loss [B] where something is there, else 0, and whether something is [B]."""
    counts = there.flatten(1).sum(1)
    return losses.masked_fill(~there, 0.0).flatten(1).sum(1) / counts.clamp(min=1), counts > 0


def action_losses(actions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of each labelled step in nats, and the labels it belongs to: two of [B, P] or [B, 1].

    A head that gives one action for a sample, [B, 3], is about the next close: the first label [reading of 7.2].

    Args:
        actions: logits of buy, hold, sell: [B, P, 3], or [B, 3].
        labels: [B, P] or [B] of 0 buy, 1 hold, 2 sell; -100 where there is none.
    """
    if actions.ndim == 2:
        actions, labels = actions.unsqueeze(1), labels.reshape(len(labels), -1)[:, :1]
    if actions.shape[:-1] != labels.shape:
        raise ValueError(f"actions {list(actions.shape)} do not fit action_labels {list(labels.shape)}")
    logits = widened(actions).flatten(0, 1)
    losses = functional.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none")
    return losses.view_as(labels), labels


class PriceAction(nn.Module):
    """Measure forecasts of prices, and the choice between buying, holding and selling, together.

    A sample's loss is the mean squared error of its scaled prices plus `action_weight` times the mean cross-entropy of
    its actions; the loss is the mean over samples in which anything was measured. Where nothing is missing that is the
    formula of 7.2; to take means within samples first, so that parts of a batch add up, is a [reading]. Parts `price`
    and `action` are means over all values and over all labels.

    Args:
        action_weight: what the cross-entropy of actions weighs beside the squared error of prices.

    Source: 7.2 of the project's algorithm reference.
    """

    def __init__(self, action_weight: NonNegativeFloat = 0.5) -> None:
        super().__init__()
        self.action_weight = action_weight

    def forward(
        self,
        prices: Tensor,
        actions: Tensor,
        future_values: Tensor,
        action_labels: Tensor,
        future_observed_mask: Tensor | None = None,
    ) -> LossOutput:
        """Return the loss of prices [B, P, F] and actions [B, P, 3] or [B, 3].

        Args:
            prices: forecasts, scaled.
            actions: logits of buy, hold, sell.
            future_values: [B, P, F] the truth, scaled.
            action_labels: [B, P] or [B] made of unscaled closes: 0 buy, 1 hold, 2 sell, -100 where there is none.
            future_observed_mask: [B, P, F] True where the truth was measured; everywhere if not given.
        """
        forecast, truth = filled(prices, future_values, future_observed_mask)
        errors = (forecast - truth).square()
        measured = truth.new_ones(truth.shape).bool() if future_observed_mask is None else future_observed_mask
        choices, labels = action_losses(actions, action_labels)
        labelled = labels != IGNORED_LABEL
        (price, has_price), (action, has_action) = mean_by_sample(errors, measured), mean_by_sample(choices, labelled)
        losses = price + self.action_weight * action
        squares = errors.detach().masked_fill(~measured, 0.0).sum()
        return LossOutput(
            losses.sum(),
            (has_price | has_action).sum(),
            parts={
                "price": (squares, measured.sum()),
                "action": (choices.detach().sum(), labelled.sum()),
            },
            weights={"action": self.action_weight},
            per_sample=partial(Tensor.detach, losses),
            terms={"price": (price.sum(), has_price.sum()), "action": (action.sum(), has_action.sum())},
        )

    def extra_repr(self) -> str:
        return f"action_weight={self.action_weight}"

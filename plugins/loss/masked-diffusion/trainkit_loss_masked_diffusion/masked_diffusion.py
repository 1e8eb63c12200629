"""The loss of masked (absorbing) diffusion: predict what the noise has hidden."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from trainkit import LossOutput
from trainkit.contracts import IGNORED_LABEL
from trainkit.errors import UsageError
from trainkit.likelihood import class_losses, per_sample_mean, pointer_losses, slot_weights

Kind = Literal["maskgit", "mdlm", "d3pm"]
MASKGIT_SMOOTHING = 0.1


def reveal_probability(mask_rate: Tensor, steps: int) -> Tensor:
    """Return the probability that a hidden slot is uncovered by the reverse step at a mask rate: [...] in [0, 1].

    The chain of D3PM hides t / T of the slots after step t of T, so a slot hidden at t is still seen at t - 1 with
    probability 1 / t = 1 / (T * mask_rate) [paper 2107.03006]. Between the rates t / T the step goes back by 1 / T, at
    most to nothing hidden [reading].

    With this probability r the KL divergence between the true and the predicted reverse step is r times the
    cross-entropy of a hidden slot, and 0 for a visible one.
    """
    return (1 / (steps * mask_rate.float()).clamp(min=1e-12)).clamp(max=1.0)


def per_slot(values: Tensor, labels: Tensor) -> Tensor:
    """Return values of samples [B] in a shape that multiplies with labels [B, ...]."""
    return values.view(-1, *[1] * (labels.ndim - 1))


class MaskedDiffusion(nn.Module):
    """Measure how well hidden slots are predicted, in nats. The model draws the noise; this only reads what it drew.

    * `maskgit` [paper 2202.04200]: the mean cross-entropy of hidden slots. Steady, but no bound on the likelihood.
    * `mdlm` [paper 2406.07524]: each hidden slot counts `elbo_weight` = -alpha'_t / (1 - alpha_t) times, over all
      slots: a bound on the negative log-likelihood per slot, the same in expectation for every noise schedule.
    * `d3pm` [paper 2107.03006, LayoutDM 2303.08137]: KL of one reverse step out of `steps` plus `x0_weight` times the
      cross-entropy, over all slots. Times T, the part `kl` is a bound where mask rates are drawn evenly. Steps are not
      drawn by importance, as the noise is the model's.

    Without `masked` every slot counts as hidden, so `maskgit` also trains a left-to-right model. An empty slot (class
    `pad_id`) is learned with `pad_weight` and is left out of part `nll`, the plain negative log-likelihood of hidden
    elements. Sum and count are both weighted by it: the loss is a weighted mean, decomposes over samples, and gives
    ln V for an even predictor whatever the weight. With nothing to predict it is an exact 0.

    Pointers (see `pointer_losses`) are hidden and weighted with their slot. They need `pointer_logits` and `sources`.
    Boxes are hidden with their slot, too: the term `geometry` is the mean distance of their four numbers from the truth
    [DLT 2303.03755 learns them jointly, by squares and with noise of their own; plain distance without noise: reading].
    It needs `box_predictions`, `boxes` and `box_mask`. A term that lacks what it needs is named inactive.

    Smoothing acts in training, on hidden slots only; evaluation is plain.

    Args:
        kind: 'maskgit', 'mdlm' or 'd3pm'.
        label_smoothing: share of the target spread over the possible classes; unset: 0.1 for maskgit, else 0.
        pointer_weight: weight of the pointers; 0 leaves them out.
        joint: sum over a slot's pointers (the exact likelihood) instead of their mean.
        box_weight: weight of the boxes; 0 leaves them out.
        pad_weight: weight of empty slots. 3.8 gives padding .1; a slot of a tree that stays empty is an answer like
            any other, and with .1 models write too much [reading].
        pad_id: the class of empty slots; -1 where there is none.
        steps: T, the discrete steps of d3pm.
        x0_weight: weight of the cross-entropy beside the divergence in d3pm.

    Raises:
        UsageError: at the first batch, where the model does not give what the kind reads.
    """

    def __init__(
        self,
        kind: Kind = "maskgit",
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] | None = None,
        pointer_weight: NonNegativeFloat = 1.0,
        joint: bool = False,
        box_weight: NonNegativeFloat = 1.0,
        pad_weight: NonNegativeFloat = 1.0,
        pad_id: Annotated[int, Field(ge=-1)] = 0,
        steps: PositiveInt = 100,
        x0_weight: NonNegativeFloat = 0.1,
    ) -> None:
        super().__init__()
        self.kind: Kind = kind
        default = MASKGIT_SMOOTHING if kind == "maskgit" else 0.0
        self.label_smoothing = default if label_smoothing is None else label_smoothing
        self.pointer_weight, self.joint, self.box_weight = pointer_weight, joint, box_weight
        self.pad_weight, self.pad_id = pad_weight, pad_id
        self.steps, self.x0_weight = steps, x0_weight

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        masked: Tensor | None = None,
        mask_rate: Tensor | None = None,
        elbo_weight: Tensor | None = None,
        pointer_logits: Tensor | None = None,
        sources: Tensor | None = None,
        struct_mask: Tensor | None = None,
        box_predictions: Tensor | None = None,
        boxes: Tensor | None = None,
        box_mask: Tensor | None = None,
    ) -> LossOutput:
        """Return the loss of logits [B, N, C] for labels [B, N], and of the pointers where they are given.

        Args:
            logits: [B, N, C].
            labels: [B, N]; -100 is no slot.
            masked: [B, N] bool, the slots that the noise has hidden.
            mask_rate: [B] probability with which a sample's slots were hidden.
            elbo_weight: [B] weight of a hidden slot in the bound.
            pointer_logits: [B, N, K, S+1].
            sources: [B, N, K].
            struct_mask: [B, S] bool, the structure nodes that exist.
            box_predictions: [B, N, 4] centre x, centre y, width, height as shares of the picture.
            boxes: [B, N, 4].
            box_mask: [B, N] bool, the slots that have a box.
        """
        weights = slot_weights(labels, self.pad_id, self.pad_weight)
        visible = torch.zeros_like(labels, dtype=torch.bool) if masked is None else ~masked
        hidden = weights.masked_fill(visible, 0.0)
        counted = hidden if self.kind == "maskgit" else weights
        scale = hidden
        if self.kind == "mdlm":
            scale = hidden * per_slot(self._needed("elbo_weight", elbo_weight).float(), labels)
        elif self.kind == "d3pm":
            reveal = per_slot(reveal_probability(self._needed("mask_rate", mask_rate), self.steps), labels)
            scale = hidden * (reveal + self.x0_weight)

        smoothing = self.label_smoothing if self.training else 0.0
        targets = labels.masked_fill(visible, IGNORED_LABEL)
        losses, likelihoods = class_losses(logits, targets, smoothing)
        slots = {"base": losses * scale}
        inactive = []
        if self.pointer_weight and pointer_logits is not None and sources is not None:
            targeted = sources.masked_fill(visible.unsqueeze(-1), IGNORED_LABEL)
            pointers = pointer_losses(pointer_logits, targeted, struct_mask, smoothing, joint=self.joint)
            slots["pointer"] = pointers * scale
        elif self.pointer_weight:
            inactive.append("pointer")
        if self.box_weight and box_predictions is not None and boxes is not None and box_mask is not None:
            distances = (box_predictions.float() - boxes).abs().mean(-1)
            slots["geometry"] = distances * box_mask * scale
        elif self.box_weight:
            inactive.append("geometry")

        count = counted.sum()
        wanted = {"base": 1.0, "pointer": self.pointer_weight, "geometry": self.box_weight}
        terms = {name: (losses.sum(), count) for name, losses in slots.items()}
        total = torch.stack([wanted[name] * losses for name, losses in slots.items()]).sum(0)
        elements = (targets != IGNORED_LABEL) & (targets != self.pad_id)
        plain = likelihoods.detach()
        parts = {name: (term.detach(), count) for name, (term, _) in terms.items()}
        parts["nll"] = ((plain * elements).sum(), elements.sum())
        if self.kind == "d3pm":
            parts["kl"] = ((plain * hidden * reveal).sum(), count)
        return LossOutput(
            total.sum(),
            count,
            parts=parts,
            weights={name: wanted[name] for name in slots},
            per_sample=partial(per_sample_mean, total, counted),
            terms=terms,
            inactive=inactive,
        )

    def _needed(self, name: str, value: Tensor | None) -> Tensor:
        if value is None:
            raise UsageError(
                f"loss masked-diffusion of kind {self.kind} reads {name}, which neither model nor batch gives",
                why="the kind weighs hidden slots by the noise that was drawn",
                do="take loss.kind=maskgit, or a model that gives it, as that of task.layout with order=diffusion does",
            )
        return value

    def extra_repr(self) -> str:
        return f"kind={self.kind}, label_smoothing={self.label_smoothing}, pad_weight={self.pad_weight}"

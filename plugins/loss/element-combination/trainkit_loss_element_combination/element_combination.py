"""The loss of layout elements: which base, made of which nodes of the structure, in what context."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from trainkit import LossOutput, hookimpl
from trainkit.contracts import IGNORED_LABEL
from trainkit.likelihood import class_losses, per_sample_mean, pointer_losses, slot_weights, widened
from trainkit.stepsums import StepSums

from .terms import (
    Align,
    alignment,
    context_losses,
    cosines,
    count_pairs,
    elements_of,
    entropy_of_mean,
    squared_logits,
    transition_costs,
)

if TYPE_CHECKING:
    from trainkit.live import Run

_log = logging.getLogger(__name__)


class ElementCombination(nn.Module):
    """Measure how well elements `base@source@...` are predicted, in nats per slot, with four regularisers.

    * `base`: cross-entropy of the slots' classes.
    * `pointer`: cross-entropy of their sources and STOP, the mean over a slot's pointers or, if `joint`, their sum,
      which with `base` is the exact likelihood. mode='flat' has none: there a class is a whole key.
    * `align`: agreement of pooled visual and structural features. 'infonce' is symmetric with a temperature, 1 - cos
      for a batch of one; 'cosine' is 1 - cos; 'cosine_entropy' [impl] minus the cosine times the entropy of the mean
      prediction, which has no lower bound and rewards uncertainty.
    * `l2`: mean squared base logit of the possible classes.
    * `context`: expected cost of a base inside its parent's base, from -log P(child | parent) of the training layouts,
      scaled to [0, 1]. It is of elements only: an empty slot says nothing about what stands in what [reading].

    All of 3.3 is a [reading]. Only `masked` slots count, where the model tells which they are. Empty slots count
    `pad_weight`, above and below, in every term; part `nll` is the plain likelihood of the bases without them. Terms
    that the batch cannot give are named inactive. Smoothing acts in training only.

    `base`, `pointer` and `l2` are sums over slots and decompose. `align` belongs to a batch: under accumulation it is
    the mean over micro-batches, weighted by their slots, and contrasts within each alone. The pairs of `context` are
    counted in training, once a step, over all ranks; in a loop of your own call `keep()` after each forward pass
    that is trained on and `advance()` after each step. Over epochs the added one loses weight [reading].

    Args:
        mode: 'factorised' (base and pointers) or 'flat' (one class for each whole key).
        joint: sum over a slot's pointers instead of their mean.
        label_smoothing: share of the target spread over the possible classes and pointers.
        align: 'infonce', 'cosine' or 'cosine_entropy'.
        temperature: temperature of 'infonce'.
        align_weight: weight of the alignment; 0 leaves it out.
        l2_weight: weight of the squared logits; 0 leaves them out.
        context_weight: weight of the context; 0 leaves it out.
        pad_weight: weight of empty slots. 3.8 gives padding .1; a slot of a tree that stays empty is an answer like
            any other, and with .1 models write too much [reading].
        pad_id: the class of empty slots; -1 where there is none.
    """

    pairs: Tensor

    def __init__(
        self,
        mode: Literal["factorised", "flat"] = "factorised",
        joint: bool = False,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        align: Align = "infonce",
        temperature: PositiveFloat = 0.07,
        align_weight: NonNegativeFloat = 0.1,
        l2_weight: NonNegativeFloat = 1e-4,
        context_weight: NonNegativeFloat = 0.05,
        pad_weight: NonNegativeFloat = 1.0,
        pad_id: Annotated[int, Field(ge=-1)] = 0,
    ) -> None:
        super().__init__()
        pointer = 1.0 if mode == "factorised" else 0.0
        weights = {"base": 1.0, "pointer": pointer, "align": align_weight, "l2": l2_weight, "context": context_weight}
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.mode, self.joint, self.label_smoothing = mode, joint, label_smoothing
        self.align: Align = align
        self.temperature, self.pad_weight, self.pad_id = temperature, pad_weight, pad_id
        self.register_buffer("pairs", torch.zeros(0, 0, dtype=torch.long))
        self._sums = StepSums()

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        pointer_logits: Tensor | None = None,
        sources: Tensor | None = None,
        struct_mask: Tensor | None = None,
        masked: Tensor | None = None,
        tree_parent: Tensor | None = None,
        visual_features: Tensor | None = None,
        structural_features: Tensor | None = None,
    ) -> LossOutput:
        """Return the loss of logits [B, N, C] for labels [B, N], with the terms that the other values allow.

        Args:
            logits: [B, N, C].
            labels: [B, N]; -100 is no slot.
            pointer_logits: [B, N, K, S+1].
            sources: [B, N, K].
            struct_mask: [B, S] bool, the structure nodes that exist.
            masked: [B, N] bool, the slots that count.
            tree_parent: [B, N].
            visual_features: [B, d].
            structural_features: [B, d].
        """
        hidden = torch.ones_like(labels, dtype=torch.bool) if masked is None else masked
        slots = slot_weights(labels, self.pad_id, self.pad_weight).masked_fill(~hidden, 0.0)
        targets = labels.masked_fill(~hidden, IGNORED_LABEL)
        smoothing = self.label_smoothing if self.training else 0.0
        base, likelihoods = class_losses(logits, targets, smoothing)
        of_slots = {"base": base * slots}
        if "pointer" in self.weights and pointer_logits is not None and sources is not None:
            targeted = sources.masked_fill(~hidden.unsqueeze(-1), IGNORED_LABEL)
            pointers = pointer_losses(pointer_logits, targeted, struct_mask, smoothing, joint=self.joint)
            of_slots["pointer"] = pointers * slots
        if "l2" in self.weights:
            of_slots["l2"] = squared_logits(logits) * slots
        tracked = {}
        if "context" in self.weights and tree_parent is not None:
            of_slots["context"] = self._context(logits, labels, tree_parent, masked) * slots * self._elements(labels)
            tracked["pairs"] = (count_pairs(labels, tree_parent, self.pad_id, logits.shape[-1]), 1)
        self._sums.put(tracked if self.training else {})
        count = slots.sum()
        sums = {name: term.sum() for name, term in of_slots.items()}
        if "align" in self.weights and visual_features is not None and structural_features is not None:
            sums["align"] = self._alignment(visual_features, structural_features, logits, slots) * count

        total = torch.stack([self.weights[name] * term for name, term in of_slots.items()]).sum(0)
        elements = self._elements(targets)
        parts: dict[str, tuple[Tensor, Tensor | float]] = {name: (term.detach(), count) for name, term in sums.items()}
        parts["nll"] = ((likelihoods.detach() * elements).sum(), elements.sum())
        return LossOutput(
            torch.stack([self.weights[name] * term for name, term in sums.items()]).sum(),
            count,
            parts=parts,
            weights={name: self.weights[name] for name in sums},
            per_sample=partial(per_sample_mean, total, slots),
            terms={name: (term, count) for name, term in sums.items()},
            inactive=[name for name in self.weights if name not in sums],
        )

    def _elements(self, labels: Tensor) -> Tensor:
        return elements_of(labels, self.pad_id)

    def _alignment(self, visual: Tensor, structural: Tensor, logits: Tensor, slots: Tensor) -> Tensor:
        # Products of half precision would blur a cosine over a temperature.
        with torch.autocast(visual.device.type, enabled=False):
            visual, structural = widened(visual), widened(structural)
            if self.align == "infonce":
                return alignment(visual, structural, self.temperature)
            cosine = cosines(visual, structural).mean()
            if self.align == "cosine":
                return 1 - cosine
            return -cosine * entropy_of_mean(widened(logits).softmax(-1), slots)

    def _context(self, logits: Tensor, labels: Tensor, tree_parent: Tensor, masked: Tensor | None) -> Tensor:
        classes = logits.shape[-1]
        pairs = self.pairs if self.pairs.numel() else self.pairs.new_zeros(classes + 1, classes)
        with torch.autocast(logits.device.type, enabled=False):
            probabilities = widened(logits).softmax(-1)
            return context_losses(probabilities, labels, tree_parent, transition_costs(pairs), masked)

    def keep(self, window: int | None = None) -> None:
        """Count the last forward pass as a micro-batch of the step."""
        self._sums.keep(window)

    @torch.no_grad()
    def advance(self) -> None:
        """Add the pairs of the step's micro-batches to those counted before."""
        if taken := self._sums.take():
            pairs, _ = taken["pairs"]
            self.pairs = self.pairs + pairs if self.pairs.numel() else pairs

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        if self.align == "infonce" and "align" in self.weights and run.settings.loop.accumulate > 1:
            _log.warning(
                "element-combination: with loop.accumulate=%d the term align contrasts samples of one micro-batch only",
                run.settings.loop.accumulate,
            )

    @hookimpl
    def on_loss(self, run: Run) -> None:
        self.keep(run.moment.window)

    @hookimpl
    def on_step(self) -> None:
        self.advance()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The number of classes is known at the first batch only: the buffer takes the size of what is loaded.
        stored = state_dict.get(f"{prefix}pairs")
        if stored is not None:
            self.pairs = torch.zeros_like(stored, device=self.pairs.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        weights = ", ".join(f"{name}={weight}" for name, weight in self.weights.items())
        return f"mode={self.mode}, joint={self.joint}, align={self.align}, {weights}"

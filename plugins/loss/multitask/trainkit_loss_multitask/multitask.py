"""Several losses in one: what is hidden, elements, places, properties, looks, alignment, diversity, consistency."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from trainkit import LossOutput, UsageError, hookimpl
from trainkit.nested import InnerLoss, built
from trainkit.stepsums import StepSums

from .boxes import BoxLoss
from .counts import Counts
from .gradnorm import GradNorm
from .inner import InnerLosses
from .measurement import Measurement, at_count
from .own import diverse, measure_own
from .pages import Diversity, class_counts, flag_counts
from .terms import INNER, OWN, STAGE, STAGES, WEIGHED, WEIGHTS, Term, curriculum_stage, is_given
from .weighting import EpochAverages, Kind, Uncertainty, Variation, Weighting

if TYPE_CHECKING:
    from trainkit.live import Run


# The boxes have a term of their own here.
ONLY_CLASSES = {"use": "masked-diffusion", "box_weight": 0.0}


class Multitask(nn.Module):
    """Weigh several terms into one loss per real label, skip those the data cannot give, and log each with its weight.

    * `diff` (weight 1): the loss of hidden slots, `diffusion`. Needs `masked`.
    * `element` (1): the loss of whole elements, `element`, without its alignment. Needs `masked` or `sources`.
    * `tokens` (1): where a batch says nothing of slots, plain tokens or classes take the place of both.
    * `geom` (0.5): how far predicted boxes are off. * `props` (0.2): binary cross-entropy of the page's flags, each
      weighed neg / pos of the labels seen so far (in training). The pointer to the flagged node is left out: no task
      gives it.
    * `aes` (0.1): overlap and alignment of predicted boxes, see `aesthetic_losses`.
    * `align` (0.3): the term `align` of `element`, taken out there, so that it counts once [reading]. An `element` that
      weighs its terms dynamically keeps its own.
    * `div` (0.1): divergence of the batch's mean prediction from the classes seen so far, over real labels; where slots
      are hidden, empty ones (class 0) are left out.
    * `consistency` (0.2): agreement of several resolutions, `consistency`. Needs `scale_logits`; training only.

    Weights are those of the layout domain [impl]. Dynamic weights multiply them over tokens, diff, element, geom and
    props: see `weighting`. In evaluation all weights are the fixed ones, flags are not weighed, and every stage's terms
    take part [reading], so that validation losses compare over a run. The count is the number of real labels; a term
    with a count of its own contributes its mean times that: it is exact under accumulation only for terms that count
    labels (tokens, geom, props). `div`, `aes` of padded batches, and contrasts belong to a micro-batch.

    In a loop of your own call `keep()` after each forward pass that is trained on and, for gradnorm, `measure(model)`;
    `advance()` after each step, and `end_epoch()`; the first and third also of inner losses that have them.

    Args:
        diffusion: the loss of hidden slots.
        element: the loss of elements.
        tokens: the loss of tokens or classes.
        consistency: the loss of several resolutions; its term 'consistency' is taken if it has one.
        weights: weights by term that replace those above; 0 switches a term off.
        weighting: 'fixed', 'uncertainty' (learned log-variances), 'dwa' (epoch averages), 'gradnorm' (equal
            gradients) or 'cov' (coefficients of variation).
        kinds: what a term is for 'uncertainty': 'classification', 'regression' (geom) or 'non-negative'.
        geometry: 'l1+giou', 'l1+iou' or 'mse'.
        diversity: 'empirical' compares with the classes seen so far, 'uniform' with an even spread.
        curriculum: whether terms come in with the stages of the plan: props and aes with the second, div and
            consistency with the third. The last stage of a plan always has all.

    Raises:
        UsageError: dynamic weights over an inner loss that weighs dynamically itself, or no term that a batch can give.
    """

    def __init__(
        self,
        diffusion: InnerLoss = ONLY_CLASSES,
        element: InnerLoss = "element-combination",
        tokens: InnerLoss = "cross-entropy",
        consistency: InnerLoss = "multi-scale-consistency",
        weights: dict[Term, NonNegativeFloat] | None = None,
        weighting: Literal["fixed", "uncertainty", "dwa", "gradnorm", "cov"] = "fixed",
        kinds: dict[Term, Kind] | None = None,
        geometry: BoxLoss = "l1+giou",
        diversity: Diversity = "empirical",
        curriculum: bool = True,
    ) -> None:
        super().__init__()
        self.own_weights = WEIGHTS | (weights or {})
        self.wanted = tuple(name for name, weight in self.own_weights.items() if weight)
        self.geometry: BoxLoss = geometry
        self.diversity: Diversity = diversity
        self.curriculum, self.stage = curriculum, STAGES
        specs = {"diffusion": diffusion, "element": element, "tokens": tokens, "consistency": consistency}
        needed = {INNER[name] for name in self.wanted if name in INNER}
        self.inner = InnerLosses({name: built("loss", spec) for name, spec in specs.items() if name in needed})
        self.weighs_dynamically = weighting != "fixed"
        if self.weighs_dynamically:
            self.inner.refuse_dynamic()
        names = [name for name in WEIGHED if name in self.wanted]
        of_kind: dict[str, Kind] = {**dict.fromkeys(WEIGHED, "classification"), "geom": "regression", **(kinds or {})}
        makers: dict[str, Any] = {
            "fixed": Weighting,
            "uncertainty": partial(Uncertainty, kinds=of_kind),
            "dwa": EpochAverages,
            "gradnorm": GradNorm,
            "cov": Variation,
        }
        self.weighting: Weighting = makers[weighting](names)
        self.counts = Counts()
        self._sums = StepSums()
        self.reads = ("logits", "labels")
        self.reads_optional = tuple(dict.fromkeys(n for n in [*OWN, *self.inner.reads()] if n not in self.reads))

    def forward(self, **values: Tensor) -> LossOutput:
        """Return the loss of logits [B, ..., V] for labels [B, ...], and of all that the batch and the model give."""
        values = {name: value for name, value in values.items() if value is not None}
        found = Measurement(values["labels"])
        on, off = self._taking_part(values, found)
        self.inner.measure(on, values, found)
        measure_own(on, values, found, self.geometry, self.diversity, self.counts, weighs_flags=self.training)
        if not found.terms:
            raise UsageError(
                "multitask has nothing to learn from in this stage: no term can be computed",
                why=f"wanted: {', '.join(self.wanted)}; missing: {', '.join(found.missing) or 'none'}",
                do="give tokens or element a weight, or set loss.curriculum=false",
            )
        live = [name for name in self.weighting.names if name in found.terms]
        factors = self.weighting.factors(live) if self.training else {}
        weights = {name: self.own_weights[name] * factors.get(name, 1.0) for name in found.terms}
        extra = self.weighting.regulariser(live) if self.training else 0.0
        self._note(values, found)
        if self.training and isinstance(self.weighting, GradNorm):
            self.weighting.remember({name: self.own_weights[name] * at_count(found.terms[name], 1) for name in live})
        shown = {name: w.detach() if isinstance(w, Tensor) else w for name, w in weights.items()}
        return LossOutput(
            sum(weights[name] * at_count(pair, found.count) for name, pair in found.terms.items())
            + extra * found.count,
            found.count,
            parts=found.parts,
            weights=shown | dict.fromkeys(off, 0.0),
            per_sample=partial(found.per_sample, shown),
            terms=found.terms,
            inactive=tuple(found.missing),
        )

    def _taking_part(self, values: Mapping[str, Tensor], found: Measurement) -> tuple[set[str], list[str]]:
        """Return the terms to measure, and those that a later stage brings; note those that the batch cannot give."""
        on, off = set(), []
        for name in self.wanted:
            if name == "consistency" and not self.training:
                continue
            if not is_given(name, values) or not self.inner.can_read(name, values):
                # Tokens are no loss to a batch of slots: other terms measure the same labels.
                found.missing += [name] if name != "tokens" else []
            elif self.training and STAGE.get(name, 1) > self.stage:
                off.append(name)
            else:
                on.add(name)
        return on, off

    def _note(self, values: Mapping[str, Tensor], found: Measurement) -> None:
        """Put down what is tracked of this batch: the values of weighed terms, labels, flags."""
        if not self.training:
            self._sums.put({})
            return
        nothing = (found.count * 0.0, 0)
        tracked = {name: found.terms.get(name, nothing) for name in self.weighting.names}
        classes = class_counts(values["labels"], diverse(values, found), values["logits"].shape[-1])
        tracked["labels"] = (classes, 1)
        if "props" in values:
            tracked["flags"] = (flag_counts(values["props"]), 1)
        self._sums.put(tracked)

    def keep(self, window: int | None = None) -> None:
        """Count the last forward pass as a micro-batch of the step."""
        self._sums.keep(window)

    def measure(self, model: nn.Module, window: int | None = None) -> None:
        """Measure the terms' gradients for gradnorm, before the backward pass; nothing for other weightings."""
        if isinstance(self.weighting, GradNorm):
            self.weighting.measure(model, window)

    @torch.no_grad()
    def advance(self) -> None:
        """Renew weights and counts from the micro-batches of the step."""
        if not (taken := self._sums.take()):
            return
        self.counts.advance(taken)
        self.weighting.advance(taken)

    def end_epoch(self) -> None:
        """Take notice that an epoch is over."""
        self.weighting.end_epoch()

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        self._enter(run)

    @hookimpl
    def on_stage_start(self, run: Run) -> None:
        self._enter(run)
        if isinstance(self.weighting, GradNorm):
            self.weighting.forget_layer()

    def _enter(self, run: Run) -> None:
        self.stage = curriculum_stage(run.moment.stage, len(run.stages)) if self.curriculum else STAGES

    @hookimpl
    def on_loss(self, run: Run) -> None:
        self.keep(run.moment.window)
        self.measure(run.model, run.moment.window)

    @hookimpl
    def on_step(self) -> None:
        self.advance()

    @hookimpl
    def on_epoch_end(self) -> None:
        self.end_epoch()

    def extra_repr(self) -> str:
        weights = ", ".join(f"{name}={self.own_weights[name]}" for name in self.wanted)
        return f"{weights}, curriculum={self.curriculum}"

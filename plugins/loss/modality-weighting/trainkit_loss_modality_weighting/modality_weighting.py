"""A loss around a loss: its terms weighed by the modality that each of them speaks of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from trainkit import LossOutput, UsageError, hookimpl
from trainkit.nested import InnerLoss, built, call, reads_of

from .formulas import LOG_VARIANCE_LIMIT, MODALITIES, PRIORS, Predictor, barrier, by_uncertainty, kendall, renormalised

if TYPE_CHECKING:
    from trainkit.live import Run

Modality = Literal["visual", "structural", "geometric", "aesthetic"]
FEATURES = ("visual_features", "structural_features")
# The first name is that of element-combination and its like, the second that of multitask.
TERMS = {
    "visual": ("base", "diff"),
    "structural": ("pointer", "element"),
    "geometric": ("geometry", "geom"),
    "aesthetic": ("aesthetic", "aes"),
}


def at_count(pair: tuple[Tensor, Tensor | float], count: Tensor | float) -> Tensor:
    """Return the sum of a term as if it had been counted by `count`: its mean times that; 0 where it has no count."""
    total, own = pair[0], torch.as_tensor(pair[1], device=pair[0].device)
    return total * (count / torch.where(own > 0, own, 1))


class ModalityWeighting(nn.Module):
    """Weigh the terms of another loss by modality: visual, structural, geometric, aesthetic.

    A term that stands for a modality has the modality's weight in place of its own; other terms keep theirs. A modality
    without a term is dropped, the weights of the rest are brought to a sum of 1 again, and it is named inactive.

    * `fixed`: the priors, (0.4, 0.4, 0.2, 0) for small data, (0.35, 0.35, 0.2, 0.1) for large.
    * `uncertainty`: w_i exp(-s_i) / mean(exp(-s)), with log-variances s learned, held within [-5, 5], and half their
      sum added. Such weights do not feel a shift of all s, which half their sum would thus drag to the bound: s learns
      from sum(w_i exp(-s_i) L_i + s_i / 2) instead, which adds no value to the loss [reading].
    * `predictor`: a small network on the pooled features of both inputs and their variances. Trained on the loss alone
      it would put all weight on the smallest term: the log-barrier -`barrier` * sum log w keeps it from that, or, with
      a barrier of 0, no gradient reaches it and the weights stay the priors [reading]. The model's features get no
      gradient from it. It needs both features, and falls back to the priors (named inactive) without.

    Evaluation always uses the priors [reading], so that validation losses compare over a run. `per_sample` is that of
    the inner loss.

    Args:
        main: the loss whose terms are weighed.
        weighting: 'fixed', 'uncertainty' or 'predictor'.
        priors: the fixed weights, for 'small' or 'large' data.
        terms: names of the terms that stand for modalities, where they are not found by their usual names.
        width: number of values that each pooled feature has in the predictor; the model's width d gives it all.
        barrier: weight of the log-barrier of the predictor.
        from_stage: the stage of the plan, from 1, that weights apply from; before, the inner loss is passed on as it
            is. The last stage always weighs.

    Raises:
        UsageError: weights are to be learned over a loss that weighs its terms dynamically itself.

    Source: public implementations of the layout domain [impl]; learned log-variances: arXiv 1705.07115 [paper].
    """

    priors: Tensor

    def __init__(
        self,
        main: InnerLoss = "element-combination",
        weighting: Literal["fixed", "uncertainty", "predictor"] = "fixed",
        priors: Literal["small", "large"] = "small",
        terms: dict[Modality, str] | None = None,
        width: PositiveInt = 128,
        barrier: NonNegativeFloat = 0.01,
        from_stage: PositiveInt = 1,
    ) -> None:
        super().__init__()
        self.main = built("loss", main)
        self.weighting, self.barrier, self.from_stage = weighting, barrier, from_stage
        self.weighs_dynamically = weighting != "fixed"
        if self.weighs_dynamically:
            refuse_stacking(self.main)
        self.names = TERMS | {modality: (name,) for modality, name in (terms or {}).items()}
        self.wanted = {modality for modality, prior in zip(MODALITIES, PRIORS[priors], strict=True) if prior}
        self.is_on = True
        self.register_buffer("priors", torch.tensor(PRIORS[priors]), persistent=False)
        if weighting == "uncertainty":
            self.log_variances = nn.Parameter(torch.zeros(len(MODALITIES)))
        elif weighting == "predictor":
            self.predictor = Predictor(width)
        self.reads, optional = reads_of(self.main)
        self.reads_optional = (*optional, *(FEATURES if weighting == "predictor" else ()))

    def forward(self, **values: Tensor) -> LossOutput:
        """Return the inner loss of these values with its terms weighed anew."""
        inner = call(self.main, values)
        found = self._found(inner)
        if self.wanted.isdisjoint(found) or (self.training and not self.is_on):
            return inner
        # A modality whose term the inner loss has switched off itself is not missed.
        missing = sorted(
            modality
            for modality in self.wanted - found.keys()
            if not any(name in inner.weights for name in self.names[modality])
        )
        means = torch.stack([at_count(inner.terms[name], 1) for name in found.values()])
        places = torch.tensor([MODALITIES.index(modality) for modality in found], device=means.device)
        losses = torch.zeros(len(MODALITIES), device=means.device).index_copy(0, places, means.float())
        present = torch.zeros_like(self.priors).index_fill(0, places, 1.0) * (self.priors > 0)
        weights, extra, lacking = self._weights(losses, present, values)

        own = {name: inner.weights.get(name, 1.0) for name in inner.terms}
        own |= {name: weights[MODALITIES.index(modality)] for modality, name in found.items()}
        total = sum(own[name] * at_count(pair, inner.count) for name, pair in inner.terms.items())
        return LossOutput(
            total + extra * inner.count,
            inner.count,
            parts={**inner.parts, **{name: (term.detach(), count) for name, (term, count) in inner.terms.items()}},
            weights={name: w.detach() if isinstance(w, Tensor) else w for name, w in own.items()},
            per_sample=lambda: inner.per_sample,
            terms=inner.terms,
            inactive=tuple(dict.fromkeys([*inner.inactive, *missing, *lacking])),
        )

    def _found(self, inner: LossOutput) -> dict[str, str]:
        """Return the term of each modality that has one."""
        pairs = ((modality, name) for modality in MODALITIES for name in self.names[modality] if name in inner.terms)
        return dict(reversed(list(pairs)))

    def _weights(
        self, losses: Tensor, present: Tensor, values: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor | float, tuple[str, ...]]:
        """Return the weights [M], what is added to the loss, and what is lacking."""
        if not self.training or self.weighting == "fixed":
            return renormalised(self.priors, present), 0.0, ()
        if self.weighting == "uncertainty":
            s = self.log_variances.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
            learning = kendall(renormalised(self.priors, present), s * present, losses.detach())
            halves = 0.5 * (s.detach() * present).sum()
            return by_uncertainty(self.priors, s.detach(), present), halves + learning - learning.detach(), ()
        visual, structural = (values.get(name) for name in FEATURES)
        if visual is None or structural is None:
            return renormalised(self.priors, present), 0.0, ("predictor",)
        weights = self.predictor(visual.detach(), structural.detach(), self.priors, present)
        if self.barrier == 0:
            return weights.detach(), 0.0, ()
        return weights, self.barrier * barrier(weights), ()

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        self._enter(run)

    @hookimpl
    def on_stage_start(self, run: Run) -> None:
        self._enter(run)

    def _enter(self, run: Run) -> None:
        number = run.moment.stage + 1
        self.is_on = number >= min(self.from_stage, len(run.stages))

    @hookimpl
    def on_step(self) -> None:
        # Beyond the bound no gradient would ever bring a log-variance back.
        if self.weighting == "uncertainty":
            with torch.no_grad():
                self.log_variances.clamp_(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)

    def extra_repr(self) -> str:
        return f"weighting={self.weighting}, from_stage={self.from_stage}"


def refuse_stacking(inner: nn.Module) -> None:
    """Raise UsageError if a loss, or one inside it, weighs its terms dynamically."""
    for module in inner.modules():
        if getattr(module, "weighs_dynamically", False):
            raise UsageError(
                f"modality-weighting cannot learn weights over a loss that does so itself: {type(module).__name__}",
                where="loss.main",
                why="two dynamic weightings over the same terms work against each other",
                do="take weighting=fixed, or give the inner loss fixed weights",
            )

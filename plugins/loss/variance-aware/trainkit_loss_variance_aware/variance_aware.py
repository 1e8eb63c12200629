"""A loss around a loss: its terms weighed by how much they vary over the last steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from trainkit import LossOutput, UsageError, hookimpl
from trainkit.nested import InnerLoss, built, call, reads_of
from trainkit.stepsums import StepSums

from .formulas import Scale, contrast, similarities, variability
from .rules import AlphaBeta, Directional, Variation

if TYPE_CHECKING:
    from trainkit.live import Run

Pair = tuple[Tensor, Tensor | float]
Weights = dict[str, Tensor | float]
FEATURES = ("visual_features", "structural_features")
REGULARISER = "l2"


@dataclass(frozen=True)
class Weighed:
    """Hold what a rule makes of an inner loss.

    Args:
        terms: the terms, by name.
        weights: the weight of each; none where the inner loss is to be passed on as it is.
        tracked: what the rule wants to know about this batch; a count of 0 where it lacks something.
        missing: names of terms that the inner loss did not give.
    """

    terms: Mapping[str, Pair]
    weights: Weights
    tracked: Mapping[str, Pair]
    missing: Sequence[str] = ()


def at_count(pair: Pair, count: Tensor | float) -> Tensor:
    """Return the sum of a term as if it had been counted by `count`: its mean times that; 0 where it has no count."""
    total, own = pair[0], torch.as_tensor(pair[1], device=pair[0].device)
    return total * (count / torch.where(own > 0, own, 1))


class VarianceAware(nn.Module):
    """Weigh the terms of another loss by how much they varied in the last steps.

    * `alpha_beta` [impl, layout domain]: a * (all other terms, with their own weights) + b * align. The term `l2` keeps
      its own weight outside of a. a and b come from the last `window` steps; until then they are 1 and 0.5.
    * `directional` [paper 2503.03202; the formula is a reading]: the alignment's two directions, from picture to
      structure and back, weighed by how much their similarities vary (moving average, share 0.9 of the old). Computed
      anew from `visual_features` and `structural_features`; together they keep the alignment's own weight.
    * `cov` [paper 2009.01717]: `terms` weighed by the coefficient of variation of their loss ratios, weights that sum
      to 1; every other term keeps its own weight.

    Weights carry no gradient and are constant within an optimizer step: they follow from the steps before it
    [reading], averaged over micro-batches and ranks. In evaluation they are those of the beginning [reading], so that
    validation losses compare over a run. Without the alignment, or without any of `terms`, the inner loss is passed
    on as it is and what is missing is named inactive. `per_sample` is that of the inner loss.

    In a loop of your own call `keep()` after each forward pass that is trained on and `advance()` after each step.

    Args:
        main: the loss whose terms are weighed.
        mode: 'alpha_beta', 'directional' or 'cov'.
        align: name of the alignment among the inner loss's terms.
        terms: names of the terms that 'cov' weighs.
        scale: 'cov2' divides variances by squared means, 'raw' takes them as they are (alpha_beta).
        window: number of steps that alpha_beta remembers.
        temperature: temperature of the contrastive loss (directional).

    Raises:
        UsageError: the inner loss weighs dynamically itself.
    """

    weighs_dynamically = True

    def __init__(
        self,
        main: InnerLoss = "element-combination",
        mode: Literal["alpha_beta", "directional", "cov"] = "alpha_beta",
        align: str = "align",
        terms: Annotated[tuple[str, ...], Field(min_length=2)] = ("base", "pointer", "align"),
        scale: Scale = "cov2",
        window: Annotated[int, Field(ge=2)] = 100,
        temperature: PositiveFloat = 0.07,
    ) -> None:
        super().__init__()
        self.main = built("loss", main)
        refuse_stacking(self.main)
        self.mode, self.align, self.temperature = mode, align, temperature
        makers: dict[str, Any] = {
            "alpha_beta": lambda: AlphaBeta(window, scale),
            "directional": lambda: Directional(0.9),
            "cov": lambda: Variation(terms),
        }
        self.rule: Any = makers[mode]()
        self.reads, optional = reads_of(self.main)
        self.reads_optional = (*optional, *(FEATURES if mode == "directional" else ()))
        self._sums = StepSums()

    def forward(self, **values: Tensor) -> LossOutput:
        """Return the inner loss of these values with its terms weighed anew."""
        inner = call(self.main, values)
        weighed = self._weigh(inner, values)
        self._sums.put(weighed.tracked if self.training else {})
        inactive = tuple(dict.fromkeys([*inner.inactive, *weighed.missing]))
        if not weighed.weights:
            inner.inactive = inactive
            return inner
        return LossOutput(
            sum(weighed.weights[name] * at_count(pair, inner.count) for name, pair in weighed.terms.items()),
            inner.count,
            parts={**inner.parts, **{name: (total.detach(), n) for name, (total, n) in weighed.terms.items()}},
            weights=weighed.weights,
            per_sample=lambda: inner.per_sample,
            terms=weighed.terms,
            inactive=inactive,
        )

    def _weigh(self, inner: LossOutput, values: Mapping[str, Tensor]) -> Weighed:
        if self.mode == "directional":
            return self._directional(inner, values)
        return self._alpha_beta(inner) if self.mode == "alpha_beta" else self._cov(inner)

    def _alpha_beta(self, inner: LossOutput) -> Weighed:
        own, nothing = own_weights(inner), torch.zeros_like(inner.sum)
        rest = [name for name in inner.terms if name not in (self.align, REGULARISER)]
        main = sum((own[name] * at_count(inner.terms[name], inner.count) for name in rest), nothing)
        tracked = {"main": (main, inner.count), "align": inner.terms.get(self.align, (nothing, 0))}
        if self.align not in inner.terms:
            return Weighed({}, {}, tracked, [self.align])
        a, b = self.rule.weights() if self.training else (1.0, 0.5)
        weights = own | {name: a * own[name] for name in rest} | {self.align: b}
        return Weighed(dict(inner.terms), weights, tracked)

    def _directional(self, inner: LossOutput, values: Mapping[str, Tensor]) -> Weighed:
        visual, structural = (values.get(name) for name in FEATURES)
        names = (f"{self.align}_i2t", f"{self.align}_t2i")
        if self.align not in inner.terms or visual is None or structural is None or len(visual) < 2:
            nothing = (torch.zeros_like(self.rule.spread), 0)
            return Weighed({}, {}, {"spread": nothing}, names)
        similarity = similarities(visual, structural)
        w_i2t, w_t2i = self.rule.weights() if self.training else (1.0, 1.0)
        i2t, t2i = contrast(similarity, self.temperature)
        count = inner.terms[self.align][1]
        own = own_weights(inner)
        half = own.pop(self.align) / 2
        terms = {name: pair for name, pair in inner.terms.items() if name != self.align}
        terms |= {name: (loss.mean() * count, count) for name, loss in zip(names, (i2t, t2i), strict=True)}
        weights = own | dict(zip(names, (half * w_i2t, half * w_t2i), strict=True))
        return Weighed(terms, weights, {"spread": (variability(similarity), 1)})

    def _cov(self, inner: LossOutput) -> Weighed:
        names = self.rule.names
        live = [name for name in names if name in inner.terms]
        nothing = (torch.zeros_like(inner.sum), 0)
        tracked = {name: inner.terms.get(name, nothing) for name in names}
        missing = [name for name in names if name not in live]
        if not live:
            return Weighed({}, {}, tracked, missing)
        found = self.rule.weights(live) if self.training else dict.fromkeys(live, 1 / len(live))
        return Weighed(dict(inner.terms), own_weights(inner) | found, tracked, missing)

    def keep(self, window: int | None = None) -> None:
        """Count the last forward pass as a micro-batch of the step."""
        self._sums.keep(window)

    @torch.no_grad()
    def advance(self) -> None:
        """Renew the weights from the micro-batches of the step."""
        if taken := self._sums.take():
            self.rule.advance(taken)

    @hookimpl
    def on_loss(self, run: Run) -> None:
        self.keep(run.moment.window)

    @hookimpl
    def on_step(self) -> None:
        self.advance()

    def extra_repr(self) -> str:
        return f"mode={self.mode}, align={self.align}"


def own_weights(output: LossOutput) -> Weights:
    """Return the weight that a loss gives to each of its terms; 1 where it does not say."""
    return {name: output.weights.get(name, 1.0) for name in output.terms}


def refuse_stacking(inner: nn.Module) -> None:
    """Raise UsageError if a loss, or one inside it, weighs its terms dynamically."""
    for module in inner.modules():
        if getattr(module, "weighs_dynamically", False):
            raise UsageError(
                f"variance-aware cannot weigh a loss that weighs its terms itself: {type(module).__name__}",
                where="loss.main",
                why="two dynamic weightings over the same terms work against each other",
                do="give the inner loss fixed weights, or leave variance-aware out",
            )

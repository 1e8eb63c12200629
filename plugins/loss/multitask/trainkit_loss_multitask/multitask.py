"""Several losses in one: tokens, properties of the page, diversity of the predictions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from trainkit import LossOutput

if TYPE_CHECKING:
    from torch import Tensor

IGNORED_LABEL = -100
LOG_VARIANCE_LIMIT = 5.0
LEARNED = ("tokens", "properties")

_log = logging.getLogger(__name__)


def token_losses(log_probabilities: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the smoothed loss and the plain negative log-likelihood [...] of labels [...]; -100 costs 0."""
    ignored = labels == IGNORED_LABEL
    chosen = log_probabilities.gather(-1, labels.masked_fill(ignored, 0).unsqueeze(-1)).squeeze(-1)
    likelihood = -chosen.masked_fill(ignored, 0.0)
    if not label_smoothing:
        return likelihood, likelihood
    return torch.lerp(likelihood, -log_probabilities.mean(-1).masked_fill(ignored, 0.0), label_smoothing), likelihood


def property_losses(logits: Tensor, flags: Tensor) -> Tensor:
    """Return the binary cross-entropy of flags [B, P], the mean over the flags of each sample: [B]."""
    return binary_cross_entropy_with_logits(logits, flags, reduction="none").flatten(1).mean(1)


def divergence_from_marginal(log_probabilities: Tensor, real: Tensor, counts: Tensor) -> Tensor:
    """Return KL(mean prediction || training marginal) in nats: 0 when symbols are predicted as often as they occur.

    Args:
        log_probabilities: [..., V].
        real: [...] bool, the positions that count.
        counts: [V] how often each symbol was seen as a label; one is added to each, so that unseen ones stay possible.
    """
    positions = real.sum().clamp(min=1)
    mean = (log_probabilities.exp() * real.unsqueeze(-1)).flatten(0, -2).sum(0) / positions
    marginal = (counts + 1).to(mean.dtype)
    tiny = torch.finfo(mean.dtype).tiny
    return (mean * (mean.clamp(min=tiny).log() - (marginal / marginal.sum()).log())).sum()


def uncertainty_weighted(mean: Tensor, log_variance: Tensor, base: float) -> tuple[Tensor, Tensor]:
    """Return base * exp(-s) * mean + s / 2 with s the clamped log-variance, and the weight base * exp(-s).

    The form of a classification term. At its minimum s = ln(2 * base * mean), so a hard term is trusted less.

    Source: Kendall, Gal and Cipolla 2018, arXiv 1705.07115 [paper]; the clamp to [-5, 5] [impl].
    """
    s = log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
    weight = base * torch.exp(-s)
    return weight * mean + 0.5 * s, weight.detach()


class Multitask(nn.Module):
    """Weigh several terms into one loss per real token, skip those the data cannot give, and log each with its weight.

    * `tokens`: cross-entropy of `labels`, the mean over tokens. Part `nll` is its plain form.
    * `properties`: binary cross-entropy of `props`, the mean over flags, then over samples weighted by their tokens.
      That weighting [reading] makes it, like `tokens`, a sum over tokens: accumulation leaves the gradient as it is.
    * `diversity`: KL of the batch's mean prediction to the running frequency of labels [impl]. It is a property of a
      batch and does not decompose: under accumulation it is the token-weighted mean over micro-batches. The frequencies
      are a buffer, counted in training only, and each process counts its own.

    weighting='uncertainty' learns a log-variance for each of `tokens` and `properties` (they are parameters of this
    loss: no weight decay; a learning rate up to ten times the model's is customary). The total may then fall below 0.
    In evaluation mode the weights are the fixed ones and nothing is smoothed [reading], so the validation loss can be
    monitored. A term whose inputs never came is named by `inactive`, absent from the parts, and warned of once.

    Args:
        token_weight: weight of the tokens.
        property_weight: weight of the properties.
        diversity_weight: weight of the diversity.
        weighting: 'fixed', or 'uncertainty' for learned weights on top of the fixed ones.
        label_smoothing: share of a token's target spread evenly over all symbols, in training.

    Source: the terms and their weights are those of the layout domain [impl]; flags have no class weights yet.
    """

    def __init__(
        self,
        token_weight: NonNegativeFloat = 1.0,
        property_weight: NonNegativeFloat = 0.2,
        diversity_weight: NonNegativeFloat = 0.1,
        weighting: Literal["fixed", "uncertainty"] = "fixed",
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.base_weights = {"tokens": token_weight, "properties": property_weight, "diversity": diversity_weight}
        self.weighting = weighting
        self.label_smoothing = label_smoothing
        self.inactive = {name for name, weight in self.base_weights.items() if weight}
        self._is_reported = False
        self.log_variances = nn.ParameterDict()
        if weighting == "uncertainty":
            names = [name for name in LEARNED if self.base_weights[name]]
            self.log_variances.update({name: nn.Parameter(torch.zeros(())) for name in names})
        self.label_counts: Tensor
        self.register_buffer("label_counts", torch.zeros(0, dtype=torch.long))

    def forward(
        self, logits: Tensor, labels: Tensor, props_logits: Tensor | None = None, props: Tensor | None = None
    ) -> LossOutput:
        """Return the loss of logits [B, ..., V] for labels [B, ...], and of props_logits [B, P] for flags [B, P]."""
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        log_probabilities = logits.log_softmax(-1)
        real = labels != IGNORED_LABEL
        lengths = real.reshape(len(labels), -1).sum(1)
        count = lengths.sum()
        smoothing = self.label_smoothing if self.training else 0.0
        losses, likelihoods = token_losses(log_probabilities, labels, smoothing)
        token_sums = losses.reshape(len(labels), -1).sum(1)

        # Every term is a sum over the same tokens, so that one count serves them all.
        sums: dict[str, Tensor] = {}
        if self.base_weights["tokens"]:
            sums["tokens"] = token_sums.sum()
        if self.base_weights["properties"] and props_logits is not None and props is not None:
            flags = property_losses(props_logits.to(losses.dtype), props.to(losses.dtype))
            sums["properties"] = (flags * lengths).sum()
        if self.base_weights["diversity"]:
            self._count(labels, real, logits.shape[-1])
            sums["diversity"] = divergence_from_marginal(log_probabilities, real, self.label_counts) * count
        self._report(sums)

        total, weights = self._weigh(sums, count)
        parts: dict[str, tuple[Tensor, Tensor | float]] = {name: (term.detach(), count) for name, term in sums.items()}
        parts["nll"] = (likelihoods.detach().sum(), count)
        per_sample = token_sums.detach() / lengths.clamp(min=1)
        # 0 * logits keeps the graph when no term is left, and costs nothing worth naming otherwise.
        total = total if sums else 0.0 * logits.sum()
        return LossOutput(total, count, parts=parts, weights=weights, per_sample=per_sample)

    def _weigh(self, sums: dict[str, Tensor], count: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
        total: Any = 0.0
        weights: dict[str, Tensor | float] = {}
        for name, term in sums.items():
            base = self.base_weights[name]
            if self.training and name in self.log_variances:
                mean = term / count.clamp(min=1)
                weighted, weights[name] = uncertainty_weighted(mean, self.log_variances[name], base)
                total = total + weighted * count
            else:
                weights[name] = base
                total = total + base * term
        return total, weights

    @torch.no_grad()
    def _count(self, labels: Tensor, real: Tensor, symbols: int) -> None:
        if len(self.label_counts) == 0:
            self.label_counts = torch.zeros(symbols, dtype=torch.long, device=labels.device)
        if self.training:
            safe = labels.masked_fill(~real, 0).flatten()
            self.label_counts.index_add_(0, safe, real.flatten().to(self.label_counts.dtype))

    def _report(self, sums: dict[str, Tensor]) -> None:
        if self.inactive:
            self.inactive -= sums.keys()
        if self.inactive and not self._is_reported:
            self._is_reported = True
            _log.warning("multitask: no part %s, the batches lack its inputs", ", ".join(sorted(self.inactive)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The number of symbols is known at the first batch only: the buffer takes the size of what is loaded.
        stored = state_dict.get(f"{prefix}label_counts")
        if stored is not None:
            self.label_counts = torch.zeros_like(stored, device=self.label_counts.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        weights = ", ".join(f"{name}={weight}" for name, weight in self.base_weights.items())
        return f"{weights}, weighting={self.weighting}, label_smoothing={self.label_smoothing}"

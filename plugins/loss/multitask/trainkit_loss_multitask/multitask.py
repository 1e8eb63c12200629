"""Several losses in one: tokens, properties of the page, diversity of the predictions."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from trainkit import LossOutput

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


def clamped(log_variance: Tensor) -> Tensor:
    """Return a log-variance within [-5, 5] [impl]: no term is switched off for good, none drowns the others."""
    return log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)


def uncertainty_weight(log_variance: Tensor, base: float) -> Tensor:
    """Return base * exp(-s), the weight of a classification term with log-variance s.

    The loss adds s / 2 for each such term, so that it is least at s = ln(2 * base * term): a hard term is trusted less.

    Source: Kendall, Gal and Cipolla 2018, arXiv 1705.07115 [paper].
    """
    return base * torch.exp(-clamped(log_variance))


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

        # Means over each sample, weighted by its tokens: all terms are sums over the same tokens, one count serves all.
        of_samples: dict[str, Tensor] = {}
        if self.base_weights["tokens"]:
            of_samples["tokens"] = losses.reshape(len(labels), -1).sum(1) / lengths.clamp(min=1)
        if self.base_weights["properties"] and props_logits is not None and props is not None:
            of_samples["properties"] = property_losses(props_logits.to(losses.dtype), props.to(losses.dtype))
        sums = {name: (term * lengths).sum() for name, term in of_samples.items()}
        if self.base_weights["diversity"]:
            self._count(labels, real, logits.shape[-1])
            sums["diversity"] = divergence_from_marginal(log_probabilities, real, self.label_counts) * count
        self._report(sums)

        weights = self._weights(sums)
        parts: dict[str, tuple[Tensor, Tensor | float]] = {name: (term.detach(), count) for name, term in sums.items()}
        parts["nll"] = (likelihoods.detach().sum(), count)
        # A term of 0 keeps the graph when all weights are 0.
        total = sum((weights[name] * term for name, term in sums.items()), 0.0 * losses.sum())
        return LossOutput(
            total + self._regulariser(sums) * count,
            count,
            parts=parts,
            weights={name: w.detach() if isinstance(w, Tensor) else w for name, w in weights.items()},
            per_sample=sum((weights[name] * term for name, term in of_samples.items()), 0.0 * lengths).detach(),
        )

    def _weights(self, active: Iterable[str]) -> dict[str, Tensor | float]:
        """Return the weight of each active term: learned in training, the fixed one elsewhere."""
        weights: dict[str, Tensor | float] = {name: self.base_weights[name] for name in active}
        if self.training:
            learned = {name: s for name, s in self.log_variances.items() if name in weights}
            weights |= {name: uncertainty_weight(s, self.base_weights[name]) for name, s in learned.items()}
        return weights

    def _regulariser(self, active: Iterable[str]) -> Tensor | float:
        if not self.training:
            return 0.0
        return sum((0.5 * clamped(self.log_variances[name]) for name in active if name in self.log_variances), 0.0)

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
            _log.warning("multitask: the batches lack what these terms read: %s", ", ".join(sorted(self.inactive)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The number of symbols is known at the first batch only: the buffer takes the size of what is loaded.
        stored = state_dict.get(f"{prefix}label_counts")
        if stored is not None:
            self.label_counts = torch.zeros_like(stored, device=self.label_counts.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        weights = ", ".join(f"{name}={weight}" for name, weight in self.base_weights.items())
        return f"{weights}, weighting={self.weighting}, label_smoothing={self.label_smoothing}"

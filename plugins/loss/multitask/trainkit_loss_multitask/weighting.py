"""Dynamic weights of terms: learned log-variances, averages over epochs, coefficients of variation.

Each gives a factor on a term's own weight, 1 at first and 1 on average, and remembers what it needs in buffers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

Kind = Literal["classification", "regression", "non-negative"]
Sums = Mapping[str, tuple[Tensor, Tensor]]
LOG_VARIANCE_LIMIT = 5.0
TINY = 1e-8


class Weighting(nn.Module):
    """Give every term its own fixed weight, and be what the dynamic ones change.

    Args:
        names: the terms that may be weighed.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)

    def places(self, live: Sequence[str]) -> list[int]:
        """Return where the live terms stand among all."""
        return [self.names.index(name) for name in live]

    def factors(self, live: Sequence[str]) -> dict[str, Tensor | float]:
        """Return a factor for each of the live terms."""
        return dict.fromkeys(live, 1.0)

    def regulariser(self, live: Sequence[str]) -> Tensor | float:
        """Return what is added to the mean loss."""
        del live
        return 0.0

    def advance(self, sums: Sums) -> None:
        """Take the sums and counts of a step's terms; a count of 0 where a term was not there."""

    def end_epoch(self) -> None:
        """Take notice that an epoch is over."""

    def means(self, sums: Sums) -> tuple[Tensor, Tensor]:
        """Return the mean of each term [T], and which were there [T]."""
        pairs = [sums[name] for name in self.names]
        values = torch.stack([total / torch.where(count > 0, count, 1) for total, count in pairs])
        return values.float(), torch.stack([count > 0 for _, count in pairs])


def precision(log_variance: Tensor, kind: Kind) -> Tensor:
    """Return the factor of a term with log-variance s: exp(-s), halved for all but a classification."""
    factor = torch.exp(-log_variance)
    return factor if kind == "classification" else 0.5 * factor


def cost(log_variance: Tensor, kind: Kind) -> Tensor:
    """Return what a log-variance costs: s / 2, or ln(1 + exp(s)) / 2, which keeps the total from falling below 0."""
    return 0.5 * (softplus(log_variance) if kind == "non-negative" else log_variance)


class Uncertainty(Weighting):
    """Learn a log-variance for each term, within [-5, 5]: what is hard to predict is trusted less.

    A regression costs exp(-s) L / 2 + s / 2, a classification exp(-s) L + s / 2 [paper 1705.07115], the non-negative
    variant exp(-s) L / 2 + ln(1 + exp(s)) / 2 [paper 1805.06334].

    Args:
        names: the terms.
        kinds: the kind of each.
    """

    def __init__(self, names: Sequence[str], kinds: Mapping[str, Kind]) -> None:
        super().__init__(names)
        self.kinds = {name: kinds[name] for name in names}
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in names})

    def _bounded(self, name: str) -> Tensor:
        return self.log_variances[name].clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)

    def factors(self, live: Sequence[str]) -> dict[str, Tensor | float]:
        """Return the precision of each live term."""
        return {name: precision(self._bounded(name), self.kinds[name]) for name in live}

    def regulariser(self, live: Sequence[str]) -> Tensor | float:
        """Return what the log-variances of the live terms cost."""
        return sum((cost(self._bounded(name), self.kinds[name]) for name in live), 0.0)

    def advance(self, sums: Sums) -> None:
        """Bring the log-variances back to their bounds: beyond, no gradient would ever do it."""
        del sums
        for parameter in self.log_variances.values():
            parameter.clamp_(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)


def epoch_weights(ratios: Tensor) -> Tensor:
    """Return T exp(r / 2) / sum exp(r / 2) of the ratios [T] of two epochs' losses: what falls slowly weighs more.

    Source: dynamic weight averaging, arXiv 1803.10704 [paper].
    """
    return len(ratios) * (ratios / 2).softmax(0)


class EpochAverages(Weighting):
    """Weigh terms by how their mean over the last epoch compares with the epoch before.

    A mean is that of the steps. A term that has not been seen for two epochs yet has the ratio 1.

    Args:
        names: the terms.
    """

    running: Tensor
    steps: Tensor
    epochs: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self.register_buffer("running", torch.zeros(len(names)))
        self.register_buffer("steps", torch.zeros(len(names)))
        self.register_buffer("epochs", torch.zeros(2, len(names)))

    def factors(self, live: Sequence[str]) -> dict[str, Tensor | float]:
        """Return the weight of each live term; their mean is 1."""
        last, before = self.epochs[:, self.places(live)]
        ratios = torch.where(before > 0, last / torch.where(before > 0, before, 1), 1.0)
        return dict(zip(live, epoch_weights(ratios), strict=True))

    def advance(self, sums: Sums) -> None:
        """Take a step into the mean of the epoch."""
        values, there = self.means(sums)
        self.steps += there
        self.running += torch.where(there, (values - self.running) / self.steps.clamp(min=1), 0.0)

    def end_epoch(self) -> None:
        """Put the epoch's means behind the last; a term that was never there keeps its own."""
        seen = self.steps > 0
        self.epochs.copy_(torch.where(seen, torch.stack([self.running, self.epochs[0]]), self.epochs))
        self.running.zero_()
        self.steps.zero_()


class Variation(Weighting):
    """Weigh terms by the coefficient of variation of their loss ratios, L(t) over the mean of L before t.

    The published weights sum to 1; here their mean is 1 [reading], so that they compare with those of other terms.

    Args:
        names: the terms.

    Source: Groenendijk et al. 2020, arXiv 2009.01717 [paper].
    """

    count: Tensor
    loss_mean: Tensor
    ratio_mean: Tensor
    ratio_squares: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        for name in ("count", "loss_mean", "ratio_mean", "ratio_squares"):
            self.register_buffer(name, torch.zeros(len(names)))

    def factors(self, live: Sequence[str]) -> dict[str, Tensor | float]:
        """Return the weight of each live term; their mean is 1. They are even until a term has varied."""
        places = self.places(live)
        deviation = (self.ratio_squares[places] / self.count[places].clamp(min=1)).sqrt()
        variation = deviation / self.ratio_mean[places].abs().clamp(min=TINY)
        mean = variation.mean()
        return dict(zip(live, torch.where(mean > 0, variation / mean.clamp(min=TINY), 1.0), strict=True))

    def advance(self, sums: Sums) -> None:
        """Take a step into the running moments (Welford); a term that was not there keeps its own."""
        values, there = self.means(sums)
        count = self.count + 1
        ratio = torch.where(self.count > 0, values / torch.where(self.loss_mean == 0, 1, self.loss_mean), 1.0)
        step = ratio - self.ratio_mean
        ratio_mean = self.ratio_mean + step / count
        squares = self.ratio_squares + step * (ratio - ratio_mean)
        loss_mean = self.loss_mean + (values - self.loss_mean) / count
        for old, new in zip(
            (self.count, self.loss_mean, self.ratio_mean, self.ratio_squares),
            (count, loss_mean, ratio_mean, squares),
            strict=True,
        ):
            old.copy_(torch.where(there, new, old))

"""Cross-entropy with label smoothing, as a sum over real positions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from torch import nn
from trainkit import LossOutput, hookimpl
from trainkit.contracts import IGNORED_LABEL
from trainkit.rowlosses import row_losses

if TYPE_CHECKING:
    from torch import Tensor
    from trainkit.live import Run


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the smoothed loss and the plain negative log-likelihood of every position, in nats.

    With e the smoothing and V classes the target is (1 - e) onehot + e / V, so the true class has its share of e / V
    too; the target itself is never built.

    Args:
        logits: [..., V]; half precision is widened to float32.
        labels: [...] class indices; -100 is ignored and costs 0.
        label_smoothing: e in [0, 1).

    Returns:
        Two tensors shaped like `labels`; the second has no gradient.

    Source: Szegedy et al. 2015, arXiv 1512.00567 [paper].
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(f"logits {list(logits.shape)} do not have the shape of labels {list(labels.shape)} + [V]")
    losses, likelihood = row_losses(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), label_smoothing)
    return losses.view_as(labels), likelihood.view_as(labels)


def mean_per_sample(losses: Tensor, labels: Tensor) -> Tensor:
    """Return the detached mean over the real labels of each sample: [B] from losses and labels [B, ...]."""
    real = (labels != IGNORED_LABEL).reshape(len(labels), -1).sum(1)
    return losses.detach().reshape(len(labels), -1).sum(1) / real.clamp(min=1)


def smoothing_at(progress: float, smoothing: float, until: float | None) -> float:
    """Return the smoothing after a share of the training: it falls in a line to 0 at `until`, or stays."""
    return smoothing if until is None else smoothing * max(0.0, 1 - progress / until)


class CrossEntropy(nn.Module):
    """Measure how well tokens or classes are predicted, in nats per real label.

    The sum runs over labels other than -100 and the count is their number, so accumulation and data parallelism leave
    the gradient as it is. A batch without a real label gives an exact 0 with a zero gradient. Part `nll` is always the
    plain negative log-likelihood: take perplexity from it.

    Smoothing is a regulariser and is applied in training only [reading]: in evaluation mode the loss is the plain one,
    so that validation losses compare across settings and are not bounded from below by the entropy of the target.
    A model that was smoothed to the end gives away part of each probability, up to -log(1 - e) nats: `until` lets the
    smoothing fade, so that the last steps learn the plain likelihood [ours].

    Args:
        label_smoothing: share of the target spread evenly over all classes; 0.1 is customary.
        until: share of the run's steps over which the smoothing falls to 0; it stays if none.

    Source: Szegedy et al. 2015, arXiv 1512.00567 [paper].
    """

    def __init__(
        self,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        until: Annotated[float, Field(gt=0, le=1)] | None = None,
    ) -> None:
        super().__init__()
        self.label_smoothing, self.until = label_smoothing, until
        self._smoothing = label_smoothing

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Smooth as much as where the run stands, at its beginning or resumed."""
        self._smoothing = smoothing_at(run.moment.progress, self.label_smoothing, self.until)

    @hookimpl
    def on_step(self, run: Run) -> None:
        """Smooth less in the next step."""
        self._smoothing = smoothing_at(run.moment.progress, self.label_smoothing, self.until)

    def forward(self, logits: Tensor, labels: Tensor) -> LossOutput:
        """Return the loss of logits [B, ..., V] for labels [B, ...]."""
        smoothing = self._smoothing if self.training else 0.0
        losses, plain = cross_entropy(logits, labels, smoothing)
        count = (labels != IGNORED_LABEL).sum()
        parts = {"nll": (plain.sum(), count)}
        return LossOutput(losses.sum(), count, parts=parts, per_sample=partial(mean_per_sample, losses, labels))

    def extra_repr(self) -> str:
        return f"label_smoothing={self.label_smoothing}, until={self.until}"

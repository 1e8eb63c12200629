"""Progressive data dropout: which samples of an epoch or of a batch have a backward pass."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt
from trainkit import UsageError, hookimpl
from trainkit.contracts import Batch, LossOutput, Outputs
from trainkit.narrowing import Epoch, Indices, admitted_by, epoch_of
from trainkit.randomness import Purpose, mixed
from trainkit.ranks.sharding import excluded
from trainkit.stepsums import over_ranks

from .judging import above_quantile, rows, true_probability, wrong_somewhere

if TYPE_CHECKING:
    from torch import Tensor
    from trainkit.contracts import Dataset
    from trainkit.live import Run

Share = Annotated[float, Field(gt=0, lt=1)]
DEFAULT_GAMMA = 0.95
# gamma ** epoch * samples may lie a little below a whole number.
ROUNDING = 1e-9
# The words that keep its draws apart from those of a stage's random fraction.
EPOCH_DRAWS, BATCH_DRAWS = 1, 2
_log = logging.getLogger(__name__)


def effective_epochs(gamma: float, epochs: int, revision: int = 1) -> float:
    """Return the epochs' worth of samples that SRD trains on: (1 - gamma^(E - r)) / (1 - gamma) + r."""
    return sum(gamma**epoch for epoch in range(epochs - revision)) + min(revision, epochs)


@cache
def gamma_for(saving: float, epochs: int, revision: int = 1) -> float:
    """Return the gamma at which SRD leaves out this share of all samples; 1 where all epochs but one are revision.

    Raises:
        UsageError: in so few epochs not so much can be left out.
    """
    if epochs - revision <= 1:
        return 1.0
    wanted, most = (1 - saving) * epochs, 1 - effective_epochs(0.0, epochs, revision) / epochs
    if saving >= most:
        raise UsageError(
            f"{saving:.0%} of the samples cannot be left out in {epochs} epochs",
            where="callback.data-dropout.target_saving",
            why=f"the first and the last {revision} take all samples: less than {most:.0%} is possible",
            do="lower it, or train for more epochs",
        )
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if effective_epochs(middle, epochs, revision) < wanted else (low, middle)
    return middle


def kept_count(gamma: float, epoch: int, samples: int) -> int:
    """Return how many of the samples SRD keeps in an epoch, counted from 0: floor(gamma^epoch samples), at least 1."""
    return max(1, math.floor(gamma**epoch * samples + ROUNDING))


class DataDropout:
    """Give fewer and fewer samples a backward pass; the last epochs take all of them.

    srd keeps floor(gamma^epoch samples) random ones, drawn anew each epoch: what is left out is not read either. dbpd
    looks at each batch after its forward pass and keeps the samples that the model does not know yet: those whose true
    classes have a mean probability below tau, or, where there are no classes, whose loss lies at or above the
    tau-quantile of the last 1,024. smrd keeps as many as dbpd would, at random. Both then do the forward pass of those
    kept again, with a backward pass; a batch of which none is kept is passed over; after an epoch of such batches one
    takes all samples.

    The plan counts the steps that srd leaves, so schedules end where the training ends; dbpd and smrd have smaller
    batches in as many steps. Others that select samples do so before.

    Args:
        method: srd, dbpd or smrd.
        gamma: share of the samples that srd keeps from one epoch to the next; 0.95 if not set.
        target_saving: share of the samples of the whole run that srd leaves out, in place of gamma.
        tau: what counts as known for dbpd and smrd: a probability, 0 for all that is classified right; or the share of
            losses.
        judge: whether tau is about the probability of labels or the loss; auto takes labels where batch and model have
            them.
        revision: epochs at the end that take all samples.

    Source: Progressive Data Dropout, arXiv 2505.22342 [paper]; srd over the epoch instead of each batch, sequences by
    the mean over their labels, and the quantile of losses [reading].
    """

    def __init__(
        self,
        method: Literal["srd", "dbpd", "smrd"] = "srd",
        gamma: Share | None = None,
        target_saving: Share | None = None,
        tau: Annotated[float, Field(ge=0, lt=1)] = 0.3,
        judge: Literal["auto", "probability", "loss"] = "auto",
        revision: NonNegativeInt = 1,
    ) -> None:
        if gamma is not None and target_saving is not None:
            raise UsageError(
                "data-dropout can keep to a gamma or to a saving, not to both",
                where="callback.data-dropout",
                do="leave gamma or target_saving out",
            )
        if method != "srd" and (gamma, target_saving) != (None, None):
            raise UsageError(
                f"data-dropout's {method} has neither gamma nor target_saving: what it drops follows from the model",
                where="callback.data-dropout",
                do="set tau instead, or take method=srd",
            )
        self.method, self.gamma, self.target_saving = method, gamma, target_saving
        self.tau, self.judge, self.revision = tau, judge, revision
        self.back_propagated = self.pending = 0
        self.in_epoch = 0
        self.takes_all = False
        self.losses: list[float] = []
        self.draws_of_epoch = 0

    def check_run(self, run: Run) -> None:
        """Refuse to keep the hard ones where only the easy ones are admitted, and to run a part of a sharded model."""
        if self.method != "srd" and run.is_sharded:
            why = "how often it runs the model follows from the batch, and all ranks must run it equally often"
            raise excluded(f"data-dropout's {self.method}", "callback.data-dropout.method", why)
        easy = [f"stage {each.stage.name} of the plan" for each in run.stages if each.stage.selection.easiest < 1]
        easy += [label for label, part in run.components.items() if getattr(part, "admits_easy_first", False)]
        if self.method == "dbpd" and easy:
            raise UsageError(
                f"data-dropout's dbpd keeps the hard samples, and {easy[0]} admits the easy ones alone",
                where="callback.data-dropout.method",
                why="of the easy samples hardly one would be left to learn from",
                do="take --set callback.data-dropout.method=srd, or leave one of the two out",
            )

    def admit(self, indices: Indices, train: Dataset, epoch: Epoch) -> Indices:
        """Return the samples that an epoch keeps: a random part under srd, else all."""
        del train
        kept = self.count(len(indices), epoch)
        if kept == len(indices):
            return indices
        seed = mixed(epoch.seed, Purpose.SELECTION, epoch.number, EPOCH_DRAWS)
        drawn = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))[:kept]
        chosen: Indices = indices[np.sort(drawn.numpy())]
        return chosen

    def count(self, samples: int, epoch: Epoch) -> int:
        """Return how many of so many samples an epoch keeps."""
        if self.method != "srd" or epoch.left <= self.revision:
            return samples
        return kept_count(self.gamma_in(epoch.total), epoch.number, samples)

    def gamma_in(self, epochs: int) -> float:
        """Return gamma in a run of so many epochs."""
        if self.target_saving is None:
            return DEFAULT_GAMMA if self.gamma is None else self.gamma
        return gamma_for(self.target_saving, epochs, self.revision)

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Say so if the run is too short for anything to be dropped."""
        epoch = epoch_of(run)
        if epoch.total <= self.revision + (self.method == "srd"):
            _log.warning("data-dropout: %d epochs are too few, no sample is dropped", epoch.total)

    @hookimpl(trylast=True)
    def select_samples(self, run: Run, indices: Sequence[int]) -> Sequence[int] | None:
        """Answer with the samples of the epoch, after all others have selected theirs."""
        return admitted_by(self, run, indices) if self.method == "srd" else None

    @hookimpl(trylast=True)
    def on_loss(self, run: Run, batch: Batch, loss: LossOutput, outputs: Outputs) -> LossOutput | None:
        """Count the samples of a batch; under dbpd and smrd, answer with the loss of those that are kept."""
        samples = len(batch["sample_id"])
        if self.method == "srd" or self.takes_all or epoch_of(run).left <= self.revision:
            self.pending += samples
            return None
        keep = self._unknown(batch, loss, outputs).nonzero().flatten()
        if self.method == "smrd":
            seed = mixed(run.settings.seed, Purpose.SELECTION, run.moment.samples, BATCH_DRAWS)
            order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
            keep = order[: len(keep)].sort().values.to(keep.device)
        self.pending += len(keep)
        if len(keep) == samples:
            return None
        if len(keep) == 0:
            return LossOutput(loss.sum.detach(), 0)
        return run.forward(rows(batch, keep))[1]

    def _unknown(self, batch: Batch, loss: LossOutput, outputs: Outputs) -> Tensor:
        """Return [B] bool: which samples of a batch the model does not know yet."""
        labels, logits = batch.get("labels"), outputs.get("logits")
        has_labels = (
            isinstance(labels, torch.Tensor)
            and isinstance(logits, torch.Tensor)
            and not labels.is_floating_point()
            and logits.shape[:-1] == labels.shape
        )
        if self.judge == "probability" and not has_labels:
            raise self._cannot_judge("probability", "batches have no whole-numbered labels that fit the model's logits")
        if has_labels and self.judge != "loss":
            assert labels is not None
            assert logits is not None
            hidden = outputs.get("masked")
            if self.tau == 0:
                return wrong_somewhere(logits.detach(), labels, hidden)
            return true_probability(logits.detach(), labels, hidden) < self.tau
        if loss.per_sample is None:
            raise self._cannot_judge("loss", "the loss does not tell that of each sample (LossOutput.per_sample)")
        unknown, self.losses = above_quantile(loss.per_sample, self.losses, self.tau)
        return unknown

    def _cannot_judge(self, by: str, why: str) -> UsageError:
        return UsageError(
            f"data-dropout cannot tell by the {by} which samples the model knows",
            where="callback.data-dropout.method",
            why=why,
            do="take method=srd, which needs neither",
        )

    def _count(self, run: Run) -> None:
        """Count what was kept since the last time, on all ranks."""
        kept = int(over_ranks(torch.tensor(self.pending)))
        self.pending = 0
        self.back_propagated += kept
        self.in_epoch += kept
        self.draws_of_epoch = len(run.splits.train) * run.settings.loop.variants

    @hookimpl
    def on_step(self, run: Run) -> None:
        """Count the samples of the step."""
        self._count(run)
        run.record("data-dropout/effective_epochs", self.back_propagated / self.draws_of_epoch)

    @hookimpl
    def on_epoch_end(self, run: Run) -> None:
        """Begin to count anew; where nothing was kept, the next epoch takes all samples."""
        self._count(run)
        self.takes_all, self.in_epoch = self.in_epoch == 0, 0

    def summary(self) -> dict[str, float]:
        """Return how many samples had a backward pass, and how many epochs of all samples that makes."""
        epochs = self.back_propagated / self.draws_of_epoch if self.draws_of_epoch else 0.0
        return {"samples_back_propagated": self.back_propagated, "effective_epochs": epochs}

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted, and the last losses."""
        return {
            "back_propagated": self.back_propagated,
            "in_epoch": self.in_epoch,
            "takes_all": self.takes_all,
            "draws_of_epoch": self.draws_of_epoch,
            "losses": list(self.losses),
            "pending": self.pending,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.back_propagated, self.in_epoch = state["back_propagated"], state["in_epoch"]
        self.takes_all, self.draws_of_epoch = state["takes_all"], state["draws_of_epoch"]
        self.losses, self.pending = list(state["losses"]), state.get("pending", 0)

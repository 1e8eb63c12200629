"""Template robustness: how little it matters in which of several templates a model is asked."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor
from trainkit import SumMetric
from trainkit.errors import printable
from trainkit.likelihood import label_costs, perplexity_of

NATS, TOKENS, SAMPLES = "nats", "tokens", "samples"
LONGEST = 60
NAN = float("nan")
_log = logging.getLogger(__name__)


def likelihoods(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the plain negative log-likelihood of each sample in nats, in float64 [B], and its real labels [B].

    Args:
        logits: [B, L, V], or [B, V]; half precision is widened to float32.
        labels: [B, L], or [B], class indices; -100 is not real.
    """
    costs, real = label_costs(logits, labels, "template-robustness")
    return costs.reshape(len(labels), -1).sum(1), real.reshape(len(labels), -1).sum(1)


def robustness_of(nats: Collection[float]) -> float:
    """Return the perplexity in the best template by that in the worst, of mean negative log-likelihoods.

    In (0, 1]; 1 where the wording does not matter. NaN of fewer than two, or where one is no number.
    """
    if len(nats) < 2 or any(map(math.isnan, nats)):
        return NAN
    # Of logarithms, so that perplexities beyond what a number can hold have a ratio, too.
    return math.exp(min(nats) - max(nats))


def names_of(templates: Iterable[str]) -> dict[str, str]:
    """Return for each template a name for tags and tables: in one line, short, without a slash, no two alike."""
    names: dict[str, str] = {}
    for template in templates:
        line = printable(" ".join(template.split())).replace("/", "_")
        name = line if len(line) <= LONGEST else f"{line[: LONGEST // 2]}...{line[3 - LONGEST // 2 :]}"
        alike = sum(other == name or other.startswith(f"{name} #") for other in names.values())
        names[template] = f"{name} #{alike + 1}" if alike else name
    return names


class TemplateRobustness(SumMetric):
    """Compute how little it matters in which template a model is asked: perplexity in the best one by the worst one's.

    The perplexity of a template is exp of the mean plain negative log-likelihood of all real tokens that were asked for
    in it: likelihoods and tokens are summed over all batches, whatever the loss. 1 says that the wording does not
    matter, 0.5 that the model is in the worst one twice as unsure as in the best. It compares perplexities of the same
    targets, so it is NaN where samples were asked in one template only, or not all of them in each, with a warning.

    `perplexity` is that over all templates. Memory: three sums a template.

    Source: 4.13 ("an all-template robustness score"); what it is [reading].
    """

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self._told = ""

    def update(self, logits: Tensor, labels: Tensor, templates: Sequence[str]) -> None:
        """Add a batch: logits [B, L, V] for labels [B, L], or [B, V] for [B], and the template of each sample."""
        nats, tokens = likelihoods(logits, labels)
        for template in dict.fromkeys(templates):
            rows = torch.tensor([each == template for each in templates], device=nats.device)
            # An index by a mask would wait for the device.
            amounts = {NATS: nats.where(rows, 0).sum(), TOKENS: tokens.where(rows, 0).sum(), SAMPLES: rows.sum()}
            self.add(**{f"{name}/{template}": amount for name, amount in amounts.items()})

    def compute(self) -> dict[str, float]:
        """Return `robustness`, `perplexity` over all, and, where they compare, perplexity/NAME of each."""
        prefix = f"{NATS}/"
        templates = sorted(name.removeprefix(prefix) for name in self.sums if name.startswith(prefix))
        whole = _ratio(sum(map(self._nats, templates)), sum(map(self._tokens, templates)))
        found = {"robustness": NAN, "perplexity": perplexity_of(whole)}
        if fault := self._fault(templates):
            self._tell(fault)
            return found
        means = {template: _ratio(self._nats(template), self._tokens(template)) for template in templates}
        names = names_of(templates)
        parts = {f"perplexity/{names[each]}": perplexity_of(nats) for each, nats in means.items()}
        return found | {"robustness": robustness_of(means.values())} | parts

    def _fault(self, templates: Sequence[str]) -> str:
        """Return why templates cannot be compared; '' where they can, and where nothing was seen."""
        if len(templates) == 1:
            return "samples were asked in one template only, and there is nothing to compare it with"
        asked = {(self.total(f"{SAMPLES}/{each}"), self._tokens(each)) for each in templates}
        return "not every sample was asked in each of the templates" if len(asked) > 1 else ""

    def _tell(self, fault: str) -> None:
        if fault != self._told:
            self._told = fault
            do = "a task with templates asks in all of them where it is told to, as by task.asked_in = all"
            _log.warning("template-robustness is NaN: %s; %s", fault, do)

    def _nats(self, template: str) -> float:
        return self.total(f"{NATS}/{template}")

    def _tokens(self, template: str) -> float:
        return self.total(f"{TOKENS}/{template}")


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else NAN

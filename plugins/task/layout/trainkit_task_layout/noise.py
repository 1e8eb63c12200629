"""The arithmetic of masked diffusion: how much is hidden when, and what is uncovered next. Pure functions."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

MaskSchedule = Literal["cosine", "linear"]
EARLIEST = 1e-3
GUMBEL_TEMPERATURE = 4.5
PLAUSIBLE = 0.1


def antithetic_times(batch: int, device: torch.device | str = "cpu") -> Tensor:
    """Return times [B] in [1e-3, 1): one uniform draw shifted by multiples of 1/B, so that they are spread evenly.

    Source: MDLM 2406.07524 [paper].
    """
    # In random order: whoever stands first in its batch time and again would else never be hidden.
    strata = torch.randperm(batch, device=device)
    shifted = (torch.rand((), device=device) + strata) / batch % 1.0
    return EARLIEST + (1 - EARLIEST) * shifted


def fixed_draws(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return times [B] and numbers in [0, 1) [B, N] that follow from the labels of each sample alone.

    For evaluation: a sample's loss is then the same in every evaluation and in any company. Both are Kronecker
    sequences, which fill the interval evenly.  [reading]

    Args:
        labels: [B, N], below 0 where there is no slot.
    """
    slots = torch.arange(1, labels.shape[1] + 1, device=labels.device, dtype=torch.float64)
    content = ((labels + 1) * (labels >= 0)).double() @ slots
    times = EARLIEST + (1 - EARLIEST) * (content * 0.6180339887498949 % 1.0)
    return times.float(), ((content * 0.7548776662466927)[:, None] + slots * 0.6180339887498949).remainder(1.0).float()


def mask_rate(times: Tensor, schedule: MaskSchedule) -> Tensor:
    """Return the probability with which a slot is hidden at a time in [0, 1].

    linear: alpha_t = 1 - t [paper 2406.07524]. cosine: the ratio cos(pi r / 2) at r = 1 - t [paper 2202.04200].
    """
    return times if schedule == "linear" else torch.sin(math.pi / 2 * times)


def time_of(rate: Tensor, schedule: MaskSchedule) -> Tensor:
    """Return the time at which a share of the slots is hidden: the inverse of `mask_rate`."""
    return rate if schedule == "linear" else torch.asin(rate.clamp(0, 1)) * (2 / math.pi)


def elbo_weight(times: Tensor, schedule: MaskSchedule) -> Tensor:
    """Return -alpha'_t / (1 - alpha_t), the weight with which the loss of a hidden slot bounds the likelihood."""
    if schedule == "linear":
        return 1 / times
    return math.pi / 2 / torch.tan(math.pi / 2 * times).clamp(max=1e6)


def still_hidden(slots: Tensor, step: int, steps: int) -> Tensor:
    """Return how many of `slots` stay hidden after step 1 ... `steps`: floor(n cos(pi/2 step/steps)), 0 at the end.

    Source: MaskGIT 2202.04200 [paper]. 16 slots in 8 steps: 15, 14, 13, 11, 8, 6, 3, 0.
    """
    if step >= steps:
        return torch.zeros_like(slots)
    return (slots * math.cos(math.pi / 2 * step / steps)).floor().to(slots.dtype)


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Return the log-probabilities l_null + scale (l_cond - l_null), normalised over the last dimension.

    Scale 0 is unconditional, 1 conditional. Source: 2207.12598 [paper], on log-probabilities as in 2412.10193. With
    more than 1, a class must have a tenth of the likeliest one's probability under the condition: among classes that
    are next to impossible either way the difference of logarithms is noise, and a large scale would choose by it
    [reading; the plausibility constraint of contrastive decoding, 2210.15097].
    """
    given, free = conditional.log_softmax(-1), unconditional.log_softmax(-1)
    # What is impossible under both stays so: a difference of infinities would be no number.
    mixed = torch.lerp(free, given, scale).masked_fill(given.isneginf(), -math.inf)
    if scale > 1:
        least = given.max(dim=-1, keepdim=True).values + math.log(PLAUSIBLE)
        mixed = mixed.masked_fill(given < least, -math.inf)
    return mixed.log_softmax(-1)


def guidance_at(scale: float, step: int, steps: int, ramp: bool) -> float:
    """Return the guidance of step 1 ... `steps`; a ramp rises from little to all of it [paper 2507.08965]."""
    return 1 + (scale - 1) * step / steps if ramp else scale


def drawn(log_probabilities: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return a class for each slot and its log-probability; temperature 0 takes the most likely class."""
    if temperature <= 0:
        best = log_probabilities.max(dim=-1)
        return best.indices, best.values
    shares = (log_probabilities / temperature).softmax(-1)
    chosen = torch.multinomial(shares.flatten(0, -2), 1).view(shares.shape[:-1])
    return chosen, log_probabilities.gather(-1, chosen[..., None])[..., 0]


def least_certain(certainty: Tensor, hidden: Tensor, count: Tensor, temperature: float, share: float) -> Tensor:
    """Return which of the hidden slots stay hidden: the `count` least certain ones of each sample.

    Args:
        certainty: [B, N] log-probabilities of the classes that would be uncovered.
        hidden: [B, N] bool, the slots in question.
        count: [B] how many stay hidden.
        temperature: Gumbel noise of 4.5 times this, times `share`, varies the order; 0 for none.
        share: of the steps that are left.
    """
    if temperature > 0:
        uniform = torch.rand_like(certainty).clamp(1e-9, 1 - 1e-9)
        certainty = certainty - GUMBEL_TEMPERATURE * temperature * share * torch.log(-torch.log(uniform))
    order = certainty.masked_fill(~hidden, math.inf).argsort(dim=1)
    rank = order.argsort(dim=1)
    return hidden & (rank < count[:, None])

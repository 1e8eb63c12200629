"""The three rules as functions: from values that were seen to weights. Nothing here carries a gradient."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

Scale = Literal["cov2", "raw"]
TINY = 1e-8


def alpha_beta(main: Tensor, align: Tensor, scale: Scale = "cov2") -> tuple[Tensor, Tensor]:
    """Return the weights a of the main part and b of the alignment, from values [W] of each.

    rho = Var(main) / (Var(main) + Var(align) + 1e-8), a = 0.5 + 0.5 (1 - rho), b = 0.2 + 0.8 rho [impl, layout domain].
    Variances of the population. 'raw' takes them as they are; they have units, so 'cov2' divides each by the squared
    mean [reading].
    """
    spread = torch.stack([_spread(main, scale), _spread(align, scale)])
    rho = spread[0] / (spread.sum() + TINY)
    return 0.5 + 0.5 * (1 - rho), 0.2 + 0.8 * rho


def _spread(values: Tensor, scale: Scale) -> Tensor:
    variance = values.var(correction=0)
    return variance if scale == "raw" else variance / values.mean().square().clamp(min=TINY)


def similarities(visual: Tensor, structural: Tensor) -> Tensor:
    """Return the cosine of every picture with every structure: [B, B] from features [B, d]; half is widened."""
    return normalize(visual.float(), dim=-1) @ normalize(structural.float(), dim=-1).T


def contrast(similarity: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return InfoNCE per sample [B], [B] of cosines [B, B]: from picture to structure, and back."""
    own = torch.arange(len(similarity), device=similarity.device)
    logits = similarity / temperature
    return cross_entropy(logits, own, reduction="none"), cross_entropy(logits.T, own, reduction="none")


def variability(similarity: Tensor) -> Tensor:
    """Return how much cosines [B, B] vary in each direction: [2], the mean over i of Var_j S_ij, and over j of Var_i.

    Source: the idea is that of arXiv 2503.03202 [paper]; this formula is our own [reading].
    """
    return torch.stack([similarity.var(dim=1, correction=0).mean(), similarity.var(dim=0, correction=0).mean()])


def directional(spread: Tensor) -> Tensor:
    """Return the weights [2] of the two directions, 2 V_d / (V_i2t + V_t2i): 1 and 1 where nothing varies."""
    total = spread.sum()
    return torch.where(total > 0, 2 * spread / total.clamp(min=torch.finfo(spread.dtype).tiny), 1.0)


def variation(mean: Tensor, squares: Tensor, count: Tensor) -> Tensor:
    """Return the weights [T] of terms from the running moments of their loss ratios: they sum to 1.

    w_i = (std(l_i) / mean(l_i)) / sum, with l_i = L_i(t) / mean of L_i before t. The first ratio is 1.

    Args:
        mean: [T] mean of the ratios.
        squares: [T] sum of their squared deviations.
        count: [T] how many there were. Where no term varies yet, all weights are even.

    Source: Groenendijk et al. 2020, arXiv 2009.01717 [paper].
    """
    deviation = (squares / count.clamp(min=1)).sqrt() / mean.abs().clamp(min=TINY)
    total = deviation.sum()
    return torch.where(total > 0, deviation / total.clamp(min=TINY), 1 / len(mean))

"""The terms beside cross-entropy: alignment of features, size of logits, what is put into what. Pure functions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot
from trainkit.contracts import IGNORED_LABEL
from trainkit.likelihood import IMPOSSIBLE, widened

Align = Literal["infonce", "cosine", "cosine_entropy"]


def alignment(visual: Tensor, structural: Tensor, temperature: float = 0.07) -> Tensor:
    """Return the symmetric InfoNCE of features [B, d], in nats; of one sample alone 1 - cos, as nothing contrasts.

    Source: the temperature is that of contrastive models of pictures and words; the term itself is a [reading].
    """
    if len(visual) < 2:
        return 1 - cosines(visual, structural).mean()
    logits = normalize(visual, dim=-1) @ normalize(structural, dim=-1).T / temperature
    own = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def cosines(visual: Tensor, structural: Tensor) -> Tensor:
    """Return the cosine of each sample's two features: [B] from [B, d] and [B, d]."""
    return (normalize(visual, dim=-1) * normalize(structural, dim=-1)).sum(-1)


def entropy_of_mean(probabilities: Tensor, weights: Tensor) -> Tensor:
    """Return the entropy in nats of the weighted mean of predictions [..., C]; 0 where the weights [...] are all 0."""
    total = weights.sum()
    mean = (probabilities * weights.unsqueeze(-1)).flatten(0, -2).sum(0) / total.masked_fill(total == 0, 1.0)
    return -(mean * mean.clamp(min=torch.finfo(mean.dtype).tiny).log()).sum()


def squared_logits(logits: Tensor) -> Tensor:
    """Return the mean squared logit of each position over the classes that are possible: [...] from [..., C]."""
    logits = widened(logits)
    possible = logits > IMPOSSIBLE / 2
    return logits.masked_fill(~possible, 0.0).square().sum(-1) / possible.sum(-1).clamp(min=1)


def elements_of(labels: Tensor, pad_id: int) -> Tensor:
    """Return which slots hold an element: neither empty nor outside."""
    return (labels != IGNORED_LABEL) & (labels != pad_id)


def count_pairs(labels: Tensor, tree_parent: Tensor, pad_id: int, classes: int) -> Tensor:
    """Return how often an element of one class stands in one of another: [C+1, C] from labels and parents [B, N].

    Row a, column b: a child of class b in a parent of class a; the last row is the virtual parent of roots.
    """
    is_root = tree_parent < 0
    parents = labels.gather(1, tree_parent.clamp(min=0))
    counted = elements_of(labels, pad_id) & (is_root | elements_of(parents, pad_id))
    cells = torch.where(is_root, classes, parents) * classes + labels
    counts = torch.zeros((classes + 1) * classes, dtype=torch.long, device=labels.device)
    counts.index_add_(0, cells.masked_fill(~counted, 0).flatten(), counted.flatten().long())
    return counts.view(classes + 1, classes)


def transition_costs(counts: Tensor) -> Tensor:
    """Return C[a, b] = -log P(child b | parent a) / its maximum, in [0, 1]: [C+1, C] from counts of pairs.

    One is added to every count (Laplace). Dividing by the maximum keeps certainty at 0 [reading]. Before anything was
    counted all costs are 1, and no prediction is better than another.
    """
    smoothed = counts.float() + 1
    costs = -(smoothed / smoothed.sum(1, keepdim=True)).log()
    return costs / costs.max().clamp(min=torch.finfo(costs.dtype).tiny)


def context_losses(
    probabilities: Tensor, labels: Tensor, tree_parent: Tensor, costs: Tensor, masked: Tensor | None = None
) -> Tensor:
    """Return p_parent' C p of each slot: [B, N], the expected cost of what is predicted in what is predicted above it.

    Args:
        probabilities: [B, N, C].
        labels: [B, N]; the class of a parent that is not masked is known, and stands in for its prediction [reading].
        tree_parent: [B, N] slot of the parent, -1 for roots.
        costs: [C+1, C].
        masked: [B, N] bool; without it all parents are predicted.
    """
    classes = probabilities.shape[-1]
    parents = probabilities
    if masked is not None:
        known = one_hot(labels.clamp(min=0), classes).to(probabilities.dtype)
        parents = torch.where(masked.unsqueeze(-1), probabilities, known)
    above = tree_parent.clamp(min=0).unsqueeze(-1).expand(-1, -1, classes)
    costs = costs.to(probabilities.dtype)
    rows = torch.where((tree_parent < 0).unsqueeze(-1), costs[-1], parents.gather(1, above) @ costs[:-1])
    return (rows * probabilities).sum(-1)

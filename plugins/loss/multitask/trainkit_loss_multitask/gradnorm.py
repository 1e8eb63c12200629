"""Weights that bring the gradients of terms to a common size, each at the pace its term has earned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from trainkit import UsageError
from trainkit.stepsums import StepSums

from .weighting import TINY, Sums, Weighting

ASYMMETRY = 1.5
RATE = 0.025
LEAST = 1e-3


def pull(norms: Tensor, weights: Tensor, ratios: Tensor, asymmetry: float = ASYMMETRY) -> Tensor:
    """Return the gradient of L_grad with respect to the weights w: [T].

    L_grad = sum |G_i - mean(G) r_i^a|, with G_i = w_i ||grad L_i|| on the shared layer W, r_i = (L_i / L_i(0)) over its
    mean, and the target held constant. As G_i is proportional to w_i, the gradient is ||grad L_i|| sign(G_i - target).

    Args:
        norms: ||grad L_i|| of the unweighted terms.
        weights: w.
        ratios: L_i / L_i(0).
        asymmetry: a; larger pulls terms that learn slowly more strongly.

    Source: GradNorm, arXiv 1711.02257 [paper].
    """
    sizes = weights * norms
    pace = ratios / ratios.mean().clamp(min=TINY)
    return norms * torch.sign(sizes - sizes.mean() * pace.clamp(min=0) ** asymmetry)


def last_shared(parameters: Sequence[tuple[str, nn.Parameter]], terms: Mapping[str, Tensor]) -> int:
    """Return the place of the last matrix, in the model's order, that every term depends on.

    Raises:
        UsageError: there is none.
    """
    matrices = [(place, p) for place, (_, p) in enumerate(parameters) if p.ndim >= 2 and p.requires_grad]
    reached = [
        torch.autograd.grad(term, [p for _, p in matrices], retain_graph=True, allow_unused=True)
        for term in terms.values()
    ]
    shared = [place for i, (place, _) in enumerate(matrices) if all(found[i] is not None for found in reached)]
    if not shared:
        raise UsageError(
            f"weighting=gradnorm: no layer of the model is shared by the terms {', '.join(terms)}",
            why="it compares the gradients of all terms on the last layer that they share",
            do="take another weighting, or leave a term out with a weight of 0",
        )
    return shared[-1]


class GradNorm(Weighting):
    """Weigh terms so that their gradients on the last shared layer are of one size, times r^1.5 for terms that lag.

    Norms are measured on the first micro-batch of a step [reading], by one extra backward pass to that layer for each
    term, and averaged over ranks. The weights are a buffer that moves once a step against the gradient of L_grad over
    the mean norm [reading: so the rate, 0.025, does not depend on the loss's units], and are brought to a mean of 1.
    The shared layer is looked for when a stage begins, as the weights that learn may have changed; L(0) is a term's
    first value. Needs a backward pass that can be repeated: not with torch.compile.

    Args:
        names: the terms.
    """

    weights: Tensor
    first: Tensor
    layer: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self.register_buffer("weights", torch.ones(len(names)))
        self.register_buffer("first", torch.zeros(len(names)))
        self.register_buffer("layer", torch.tensor(-1))
        self._terms: dict[str, Tensor] = {}
        self._norms = StepSums()
        self._window: int | None = None
        self._place: int | None = None

    def factors(self, live: Sequence[str]) -> dict[str, Tensor | float]:
        """Return the weight of each live term; their mean is 1."""
        weights = self.weights[self.places(live)]
        return dict(zip(live, weights / weights.mean(), strict=True))

    def remember(self, terms: Mapping[str, Tensor]) -> None:
        """Keep the mean of each live term, with its graph, until it is measured."""
        self._terms = dict(terms)

    def forget_layer(self) -> None:
        """Look for the shared layer anew."""
        self._place = None
        self.layer.fill_(-1)

    def measure(self, model: nn.Module, window: int | None = None) -> None:
        """Measure the gradients of the terms on the shared layer; only the first call for a window does."""
        terms, self._terms = self._terms, {}
        if (window is not None and window == self._window) or not terms:
            return
        self._window = window
        layer = self._shared(list(model.named_parameters()), terms)
        norms = {}
        for name in self.names:
            (gradient,) = (
                torch.autograd.grad(terms[name], [layer], retain_graph=True, allow_unused=True)
                if name in terms
                else (None,)
            )
            size = torch.zeros((), device=layer.device) if gradient is None else gradient.float().norm()
            norms[name] = (size, float(name in terms))
        self._norms.put(norms)
        self._norms.keep(window)

    def _shared(self, parameters: list[tuple[str, nn.Parameter]], terms: Mapping[str, Tensor]) -> nn.Parameter:
        if self._place is None and (saved := int(self.layer)) >= 0:
            self._place = saved
        if self._place is None or not parameters[self._place][1].requires_grad:
            self._place = last_shared(parameters, terms)
            self.layer.fill_(self._place)
        return parameters[self._place][1]

    def advance(self, sums: Sums) -> None:
        """Move the weights by what was measured in this step."""
        values, there = self.means(sums)
        self.first.copy_(torch.where(there & (self.first == 0), values, self.first))
        measured = self._norms.take()
        if not measured:
            return
        norms, found = self.means(measured)
        live = (there & found).nonzero().flatten()
        weights, norms = self.weights[live], norms[live]
        if len(live) < 2:
            return
        ratios = values[live] / torch.where(self.first[live] == 0, 1, self.first[live])
        move = pull(norms, weights, ratios) / (weights * norms).mean().clamp(min=TINY)
        moved = (weights - RATE * move).clamp(min=LEAST)
        # The live terms share what they had together, so that a term that is away comes back to its own weight.
        self.weights[live] = moved * (weights.sum() / moved.sum())

"""Learning rates of their own for some parameters: groups are split by factor before the optimizer is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

FACTOR = "rate_factor"


@runtime_checkable
class ScalesRates(Protocol):
    """Be a callback that gives parameters learning rates of their own."""

    def rate_factors(self, names: Sequence[str]) -> Mapping[str, float]:
        """Return factors on the learning rate by the name of a parameter that learns; 1 where it says nothing.

        `names` are in the order of the model.
        """
        ...


def rate_factors(callbacks: Iterable[object], names: Sequence[str]) -> dict[str, float]:
    """Return the product of what callbacks say for each parameter."""
    factors = dict.fromkeys(names, 1.0)
    for callback in callbacks:
        if isinstance(callback, ScalesRates):
            for name, factor in callback.rate_factors(names).items():
                factors[name] *= factor
    return factors


def with_factors(groups: Sequence[dict[str, Any]], factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return optimizer groups of (name, parameter) pairs, split so that each has one factor, the largest first.

    They stay whole if all factors are 1. The factor stands in the group as `rate_factor`; `scaling` puts it to use.
    """
    if all(factor == 1 for factor in factors.values()):
        return list(groups)
    split: list[dict[str, Any]] = []
    for group in groups:
        by_factor: dict[float, list[Any]] = {}
        for name, parameter in group["params"]:
            by_factor.setdefault(factors.get(name, 1.0), []).append((name, parameter))
        split += [
            group | {"params": pairs, FACTOR: factor}
            for factor, pairs in sorted(by_factor.items(), key=lambda item: -item[0])
        ]
    return split


def scaling(build: Callable[..., torch.optim.Optimizer], groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return the optimizer of groups, with the learning rate of each multiplied by its factor."""
    optimizer = build(params=groups)
    for group in optimizer.param_groups:
        if FACTOR in group:
            group["lr"] = group["lr"] * group[FACTOR]
    return optimizer

"""Learning rates of their own for some parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from trainkit.rates import rate_factors, scaling, with_factors


class Slower:
    """Halves the rate of what has a name that begins so."""

    def __init__(self, start: str) -> None:
        self.start = start

    def rate_factors(self, names: Sequence[str]) -> Mapping[str, float]:
        return {name: 0.5 for name in names if name.startswith(self.start)}


def group(name: str, *names: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "params": [(each, nn.Parameter(torch.ones(1))) for each in names], **options}


def test_factors_of_several_callbacks_multiply() -> None:
    found = rate_factors([Slower("a"), object(), Slower("ab")], ["ab", "a", "b"])
    assert found == {"ab": 0.25, "a": 0.5, "b": 1.0}


def test_groups_are_split_by_factor_the_largest_first() -> None:
    groups = [group("decay", "a", "b", "c", weight_decay=0.1), group("loss", "loss.w")]
    split = with_factors(groups, {"a": 0.5, "b": 1.0, "c": 0.5})
    assert [(g["name"], [n for n, _ in g["params"]], g["rate_factor"]) for g in split] == [
        ("decay", ["b"], 1.0), ("decay", ["a", "c"], 0.5), ("loss", ["loss.w"], 1.0)
    ]  # fmt: skip
    assert [g.get("weight_decay") for g in split] == [0.1, 0.1, None]
    assert with_factors(groups, {"a": 1.0, "b": 1.0, "c": 1.0}) == groups


def test_the_optimizer_has_each_factor_on_its_own_rate() -> None:
    groups = with_factors([group("decay", "a", "b")], {"a": 0.5, "b": 1.0})
    optimizer = scaling(lambda params: torch.optim.SGD(params, lr=0.2), groups)
    assert [g["lr"] for g in optimizer.param_groups] == [0.2, 0.1]
    assert optimizer.defaults["lr"] == 0.2

"""What an optimizer refuses: hyper-parameters out of range, and gradients it would misread."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from trainkit.errors import UsageError

Beta = Annotated[float, Field(ge=0, lt=1)]
"""The decay of a moving average, per step."""


class OptimizerError(UsageError, ValueError):
    """An optimizer was given parameters, options or gradients that it cannot work with."""


def check_group(optimizer: str, group: Mapping[str, Any], betas: int = 2) -> None:
    """Raise OptimizerError where a group's rate, betas, momentum, eps or weight decay are out of range.

    Args:
        optimizer: the name that the message gives.
        group: a parameter group with its defaults filled in; what it lacks is not checked.
        betas: how many betas the optimizer takes.
    """
    if "betas" in group and len(group["betas"]) != betas:
        raise _out_of_range(optimizer, "betas", group["betas"], f"{betas} numbers")
    for key in ("lr", "eps", "weight_decay"):
        if key in group and not all(map(_at_least_zero, _numbers(group[key]))):
            raise _out_of_range(optimizer, key, group[key], "a number of at least 0")
    for beta in group.get("betas", ()):
        if not _is_decay(beta):
            raise _out_of_range(optimizer, "betas", group["betas"], "numbers of at least 0 and below 1")
    if "momentum" in group and not _is_decay(group["momentum"]):
        raise _out_of_range(optimizer, "momentum", group["momentum"], "a number of at least 0 and below 1")


def check_bound(optimizer: str, group: Mapping[str, Any], key: str) -> None:
    """Raise OptimizerError unless a group's bound is a number above 0, or None for no bound."""
    bound = group[key]
    if bound is not None and not (_at_least_zero(bound) and bound > 0):
        raise _out_of_range(optimizer, key, bound, "a number above 0, or none for no bound")


def check_gradients(optimizer: str, parameters: Iterable[Tensor]) -> None:
    """Raise OptimizerError for the first gradient that is sparse or complex."""
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if (
            gradient.is_sparse or gradient.layout.is_sparse
            if hasattr(gradient.layout, "is_sparse")
            else gradient.is_sparse
        ):
            raise OptimizerError(
                f"{optimizer} takes no sparse gradients",
                where=f"a parameter of shape {tuple(parameter.shape)}",
                why="its moments are dense: every element moves in every step",
                do="build the embedding with sparse=False",
            )
        if gradient.is_complex():
            raise OptimizerError(
                f"{optimizer} takes no complex gradients",
                where=f"a parameter of shape {tuple(parameter.shape)}",
                why="squares and signs of complex numbers are not what its formula means",
                do="keep the parameter as a real tensor and use torch.view_as_complex in the model",
            )


def _numbers(value: Any) -> list[Any]:
    """Return the numbers of a hyper-parameter, which has one or several; None is left to the step."""
    return [number for number in value if number is not None] if isinstance(value, tuple | list) else [value]


def _is_decay(value: Any) -> bool:
    return _at_least_zero(value) and float(value) < 1


def _at_least_zero(value: Any) -> bool:
    number = float(value)
    return math.isfinite(number) and number >= 0


def _out_of_range(optimizer: str, key: str, value: Any, allowed: str) -> OptimizerError:
    return OptimizerError(f"{optimizer}: {key} = {value}", why=f"{key} takes {allowed}")

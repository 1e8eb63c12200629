"""Directions and actions: which way a value moves, and whether that is enough to buy or to sell."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Zeros = Literal["wrong", "skip"]
BUY, HOLD, SELL = range(3)
ACTIONS = 3
# Below this share of the last value a move is rounding: forecasts were scaled and scaled back in float32.
ROUNDING = 1e-6
UNKNOWN = float("nan")


def directions(values: Tensor, last: Tensor) -> Tensor:
    """Return 1 up, -1 down or 0 of values [B, H] against the last ones [B], in float64."""
    base = last.double().unsqueeze(1)
    moves = values.double() - base
    return torch.where(moves.abs() <= ROUNDING * base.abs(), 0.0, moves.sign())


def direction_sums(forecast: Tensor, truth: Tensor, measured: Tensor, zeros: Zeros) -> dict[str, Tensor]:
    """Return the sums behind accuracy and its baseline, by step [H].

    Args:
        forecast: [B, H] of 1, 0, -1.
        truth: shaped like `forecast`.
        measured: [B, H] where there is a truth.
        zeros: 'wrong': no move is right only if the truth did not move; 'skip': no move on either side is not counted.
    """
    counted = measured & (forecast != 0) & (truth != 0) if zeros == "skip" else measured
    sums = {"right": counted & (forecast == truth), "counted": counted}
    sums |= {name: counted & (truth == way) for name, way in (("up", 1), ("flat", 0), ("down", -1))}
    return {name: there.double().sum(0) for name, there in sums.items()}


def returns(values: Tensor, last: Tensor) -> Tensor:
    """Return value / last - 1 of [B] in float64; NaN where the last value is no price, as it is not above 0."""
    base = last.double()
    return values.double() / base.where(base > 0, UNKNOWN) - 1


def actions_of(moves: Tensor, threshold: float) -> Tensor:
    """Return BUY above the threshold, SELL below minus the threshold, else HOLD; NaN where the return is."""
    chosen = torch.where(moves > threshold, float(BUY), torch.where(moves < -threshold, float(SELL), float(HOLD)))
    return chosen.where(~moves.isnan(), UNKNOWN).double()
